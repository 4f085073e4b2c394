from collections.abc import Iterator
from contextlib import contextmanager

from redis import exceptions

from application.ports.errors import PortBusy, PortRejected, PortUnavailable

_REFUSED = (
    exceptions.AuthenticationError,
    exceptions.AuthenticationWrongNumberOfArgsError,
    exceptions.AuthorizationError,
)
_AWAY = (exceptions.ConnectionError, exceptions.ReadOnlyError, exceptions.ClusterDownError, exceptions.WatchError)
_NOT_NOW = ("MISCONF", "NOREPLICAS", "TRYAGAIN")


@contextmanager
def translated(port: str) -> Iterator[None]:
    """Let what Redis and the way to it raise end as the port's errors, without addresses and values.

    A mistake of ours (a script that fails, a key of another type) stays what it is.
    """
    try:
        yield
    except _REFUSED as error:  # first: the client counts some of them among its connection errors
        raise PortRejected(port, "Redis refuses the user name or password") from error
    except exceptions.NoPermissionError as error:
        raise PortRejected(port, "the Redis user may not do this: a right is missing") from error
    except exceptions.OutOfMemoryError as error:
        raise PortBusy(port, "Redis has no memory left") from error
    except (exceptions.TimeoutError, TimeoutError) as error:
        raise PortUnavailable(port, "Redis did not answer in time") from error
    except (*_AWAY, OSError) as error:
        raise PortUnavailable(port, "Redis cannot be reached") from error
    except exceptions.ResponseError as error:
        if str(error).startswith(_NOT_NOW):
            raise PortUnavailable(port, "Redis takes no writes at this moment") from error
        if "DB index is out of range" in str(error):
            raise PortRejected(port, "Redis has no database of that number") from error
        raise
