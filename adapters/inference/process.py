"""What is set once for the whole process, because it cannot be set for less."""

import ctypes
import sys
from typing import Final

import cv2

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_MMAP: Final = 4 << 20
_TRIM: Final = 8 << 20

_SWITCH: Final = 0.0001
"""Seconds after which a thread that waits for the interpreter gets it; Python's default is fifty times as long.

An inference thread needs it between two calls into native code, for microseconds, and its core is idle while it waits
for the event loop to let go. Four clients verifying on two busy cores, ten rounds in turn: 1.03 times the calls that
0.0005 lets through and 1.08 times those of the default, 5.2 % of the cores idle and not 6.8 and 8.0; the processor time
of a call is no more. With 0.00002 it is no better.
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
