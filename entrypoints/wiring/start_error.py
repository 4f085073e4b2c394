class StartError(Exception):
    """The service cannot start; the message says why and what to do, and is all that an operator sees."""
