"""Sessions of ONNX Runtime, with everything set on purpose."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from adapters.inference.providers import execution_providers, require_loaded
from application.ports.errors import PortUnavailable

CPU: Final = "cpu"
_ERRORS_ONLY: Final = 3


def open_graph(path: Path, *, port: str, providers: Sequence[str] = (CPU,), threads: int = 1) -> "Graph":
    """Load a model. It may be called from several threads at once: each call computes in its caller.

    Args:
        path: of the ONNX file.
        port: whose name errors carry.
        providers: in order, by the names that `execution_providers` knows.
        threads: as `session_options` takes them.

    Raises:
        PortRejected: a provider that was asked for is not there or does not start. Nothing falls back to another one.
        PortUnavailable: the file cannot be loaded.
    """
    wanted = execution_providers(providers, port=port)
    with translated(port):
        session = onnxruntime.InferenceSession(path, session_options(threads), providers=list(wanted))
    require_loaded(session, wanted, port=port)
    return Graph(session, port)


def session_options(threads: int = 1) -> onnxruntime.SessionOptions:
    """Return options for sessions that are called from several threads at once.

    One thread a call: two calls side by side on two cores beat one call on both by 40 %, and spinning between calls
    takes the cores from whoever decodes. One session for all threads is as fast as a session each and holds the
    weights once. The arena stays on although images differ in size: without it a 640 x 448 detection takes 38 instead
    of 35 ms, and with it a thread keeps about 50 MB, measured over 200 sizes.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_cpu_mem_arena = True
    options.enable_mem_pattern = True
    options.log_severity_level = _ERRORS_ONLY
    return options


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
