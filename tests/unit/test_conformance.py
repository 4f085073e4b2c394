import pytest

from application.conformance.contract import Contract


class Promises(Contract):
    def test_it_works(self) -> None:
        raise NotImplementedError


def test_a_promise_cannot_be_overridden() -> None:
    with pytest.raises(TypeError, match="test_it_works"):
        type("TestWeaker", (Promises,), {"test_it_works": lambda _: None})


def test_a_promise_cannot_be_overridden_further_down_either() -> None:
    with pytest.raises(TypeError, match="test_it_works"):
        type("TestWeaker", (type("TestOurs", (Promises,), {}),), {"test_it_works": None})


def test_more_tests_can_be_added() -> None:
    type("TestMore", (Promises,), {"test_it_does_more": lambda _: None})
