from domain.errors import FacepassError


class StartError(Exception):
    """The service cannot start; the message says why and what to do, and is all that an operator sees."""


def in_words(error: FacepassError) -> str:
    """Return an error as an operator sees it: which port it is about, where it is about one, and its stable code."""
    port = getattr(error, "port", None)
    about = "" if port is None or port in error.message else f"{port.replace('_', ' ')}: "
    return f"{about}{error.message} ({error.code})"
