"""Execution providers of ONNX Runtime: the one that was asked for, or none."""

from collections.abc import Sequence
from typing import Final

import onnxruntime

from application.ports.errors import PortRejected

_SUFFIX: Final = "ExecutionProvider"
_OTHER_NAMES: Final = {"directml": "dml"}
"""Names that users know better than those of onnxruntime."""


def execution_providers(asked: Sequence[str], *, port: str) -> tuple[str, ...]:
    """Return the full names of providers that this build of onnxruntime has, in the order asked for.

    Args:
        asked: short names (`cpu`, `cuda`, `tensorrt`, `openvino`, `coreml`, `directml`, ...) or full ones
            (`CUDAExecutionProvider`), whatever their case.
        port: whose setting it is; errors name it.

    Raises:
        PortRejected: none is asked for, a name is unknown, or this build does not have it.
    """
    available = onnxruntime.get_available_providers()
    known = {_short(full): full for full in (*onnxruntime.get_all_providers(), *available)}
    wanted = tuple(dict.fromkeys(known.get(_short(name), name) for name in asked))
    if not wanted:
        raise PortRejected(port, f"{_setting(port)} names no execution provider; {_here(available)}")
    for name in wanted:
        if name not in known.values():
            raise PortRejected(
                port, f"{_setting(port)} asks for {name}, which onnxruntime does not know; {_here(available)}"
            )
        if name not in available:
            raise PortRejected(
                port, f"{_setting(port)} asks for {name}, which this build of onnxruntime lacks; {_here(available)}"
            )
    return wanted


def require_loaded(session: onnxruntime.InferenceSession, providers: Sequence[str], *, port: str) -> None:
    """Refuse a session that runs on less than was asked for, and keep it from ever changing over.

    onnxruntime prints that a provider could not be started (no device, a library that is missing) and goes on
    without it.

    Raises:
        PortRejected: one of `providers`, full names, is not among the session's.
    """
    session.disable_fallback()
    loaded = session.get_providers()
    lost = [name for name in providers if name not in loaded]
    if lost:
        raise PortRejected(
            port,
            f"{_setting(port)} asks for {', '.join(lost)}, which onnxruntime has but could not start: is its device "
            f"there, with its driver and libraries? Only these would run: {_shown(loaded)}",
        )


def _short(name: str) -> str:
    short = name.strip().lower().removesuffix(_SUFFIX.lower())
    return _OTHER_NAMES.get(short, short)


def _setting(port: str) -> str:
    return f"FACEPASS_{port.upper()}__PROVIDERS"


def _here(available: Sequence[str]) -> str:
    return f"available here: {_shown(available)}"


def _shown(names: Sequence[str]) -> str:
    better = {short: other for other, short in _OTHER_NAMES.items()}
    return ", ".join(better.get(_short(name), _short(name)) for name in names)
