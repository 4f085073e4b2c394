import json

import pytest
import structlog

from entrypoints.logs import configure_logs
from entrypoints.settings import Settings

PERSONAL = "Jane Doe"


def fail() -> None:
    try:
        {}[PERSONAL]
    except KeyError as error:
        raise ValueError(f"parameters: {PERSONAL}") from error


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_an_error_is_told_by_its_kind_and_place_and_never_by_its_words(
    capsys: pytest.CaptureFixture[str], log_format: str
) -> None:
    configure_logs(Settings(log_format=log_format))  # type: ignore[arg-type]  # one of the two, as parametrised
    try:
        fail()
    except ValueError as error:
        structlog.get_logger("test").error("internal_error", exc_info=error)
    line = capsys.readouterr().err
    assert PERSONAL not in line
    assert "ValueError from KeyError" in line
    assert "test_logs.py" in line
    if log_format == "json":
        assert json.loads(line)["event"] == "internal_error"
