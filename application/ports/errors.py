"""What ports raise about themselves, whatever technology stands behind them."""

from domain.errors import PortError


class PortUnavailable(PortError):
    """The backend cannot be reached or does not answer; trying again later may help."""

    code = "dependency_unavailable"

    def __init__(self, port: str, message: str) -> None:
        """Take the port's name (`vector_index`) and what happened, free of addresses and secrets."""
        super().__init__(message)
        self.port = port


class PortBusy(PortError):
    """The backend works, but its queue is full; `retry_after` is in seconds."""

    code = "busy"

    def __init__(self, port: str, message: str, *, retry_after: float = 1.0) -> None:
        """Take the port's name and the seconds after which another try makes sense."""
        super().__init__(message)
        self.port = port
        self.retry_after = retry_after


class PortRejected(PortError):
    """The backend understood and refused: a wrong setting, a missing right, a value out of its range."""

    code = "dependency_rejected"

    def __init__(self, port: str, message: str) -> None:
        """Take the port's name and the refusal."""
        super().__init__(message)
        self.port = port
