"""What is set once for the whole process, because it cannot be set for less."""

import ctypes
import sys
from typing import Final

import cv2

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_MMAP: Final = 4 << 20
_TRIM: Final = 8 << 20

_SWITCH: Final = 0.0005
"""Seconds after which a thread that waits for the interpreter gets it; Python's default is ten times as long.

An inference thread needs it between two calls into native code, for microseconds, and its core is idle while it waits
for the event loop to let go. Four clients verifying on two busy cores, four rounds in turn: 0.89 to 0.97 of the bare
pipeline's rate (median 0.93), with the default 0.85 to 0.98 (0.89).
"""


def prepare_process() -> None:
    """Leave threads to the executor, let them take turns quickly, and let memory come back. May be called again.

    OpenCV starts no threads of its own beside those that call it. With the GNU C library, blocks of 4 MB and more are
    returned to the system at once: by default its threshold climbs to 32 MB, and each thread keeps what its largest
    photograph took. Eight 36-megapixel PNGs in eight threads: 1.9 GB before, 0.6 GB with it.
    """
    cv2.setNumThreads(1)
    sys.setswitchinterval(_SWITCH)
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none, and none of the problem
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, _MMAP)
            mallopt(_M_TRIM_THRESHOLD, _TRIM)
