"""What all contract classes share."""

from typing import ClassVar


class Contract:
    """A port's promises as tests. Subclass the one of your port and give it its one fixture.

    A promise that does not fit cannot be replaced by a weaker one: overriding a test is an error. What a backend
    may choose is declared in class attributes.
    """

    _promises: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls) -> None:
        """Raise `TypeError` where a subclass overrides a test of its contract."""
        super().__init_subclass__()
        overridden = sorted(cls._promises & vars(cls).keys())
        if overridden:
            raise TypeError(f"{cls.__name__} overrides tests of its contract: {', '.join(overridden)}")
        cls._promises |= {name for name in vars(cls) if name.startswith("test_")}
