"""Sessions of ONNX Runtime, with everything set on purpose."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

# The library reports its use to its maker unless this stands in the environment when it is imported. A service that
# sees faces reports to nobody.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # noqa: TID251 - set, not read; there is no other way

import onnxruntime

from application.ports.errors import PortRejected, PortUnavailable

CPU: Final = "CPUExecutionProvider"
_ERRORS_ONLY: Final = 3


def open_graph(path: Path, *, port: str, providers: Sequence[str] = (CPU,), threads: int = 1) -> "Graph":
    """Load a model. It may be called from several threads at once: each call computes in its caller.

    One thread a call: two calls side by side on two cores beat one call on both by 40 %, and spinning between calls
    takes the cores from whoever decodes. One session for all threads is as fast as a session each and holds the
    weights once. The arena stays on although images differ in size: without it a 640 x 448 detection takes 38 instead
    of 35 ms, and with it a thread keeps about 50 MB, measured over 200 sizes.

    Raises:
        PortRejected: a provider that was asked for is not there. Nothing falls back to another one.
        PortUnavailable: the file cannot be loaded.
    """
    missing = [name for name in providers if name not in onnxruntime.get_available_providers()]
    if missing:
        raise PortRejected(port, f"onnxruntime has no {', '.join(missing)} here")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_cpu_mem_arena = True
    options.enable_mem_pattern = True
    options.log_severity_level = _ERRORS_ONLY
    with translated(port):
        session = onnxruntime.InferenceSession(path, options, providers=list(providers))
        session.disable_fallback()
    loaded = session.get_providers()
    lost = [name for name in providers if name not in loaded]
    if lost:
        raise PortRejected(port, f"onnxruntime could not start {', '.join(lost)}; it would run on {loaded[0]}")
    return Graph(session, port)


@final
class Graph:
    """A loaded model of one input."""

    def __init__(self, session: onnxruntime.InferenceSession, port: str) -> None:
        """Take the session and the name of the port that errors carry."""
        self._session = session
        self._input = session.get_inputs()[0].name
        self._port = port

    def __call__(self, batch: NDArray[np.generic]) -> list[NDArray[np.float32]]:
        """Run it and return all outputs, in the graph's order. Raises `PortUnavailable`."""
        with translated(self._port):
            outputs: list[NDArray[np.float32]] = self._session.run(None, {self._input: batch})
        return outputs


@contextmanager
def translated(port: str) -> Iterator[None]:
    """Turn what onnxruntime raises into `PortUnavailable`."""
    try:
        yield
    except PortUnavailable:
        raise
    except Exception as error:  # onnxruntime's classes share no base but Exception
        raise PortUnavailable(port, f"the model cannot be run: {type(error).__name__}") from error
