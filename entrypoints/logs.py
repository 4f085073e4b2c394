"""Structured logs: for people on a console, one JSON object a line elsewhere. To standard error."""

import logging
import sys
import traceback
from collections.abc import Iterator

import structlog
from structlog.stdlib import ProcessorFormatter
from structlog.typing import EventDict, Processor

from entrypoints.redaction import redact, redacted
from entrypoints.settings import Settings


def configure_logs(settings: Settings) -> None:
    """Set what is logged and how. Libraries' own loggers are heard from warnings on, and redacted alike."""
    level = getattr(logging, settings.log_level.upper())
    before: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    written: list[Processor] = [
        redact,
        _without_words,
        structlog.processors.JSONRenderer()
        if settings.log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
    ]
    structlog.configure(
        processors=[*before, *written],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    _configure_libraries(max(level, logging.WARNING), before, written)


def _configure_libraries(level: int, before: list[Processor], written: list[Processor]) -> None:
    """Send what libraries say the same way, so that nothing gets round it."""
    root = logging.getLogger()
    for handler in [one for one in root.handlers if isinstance(one.formatter, _Redacting)]:
        root.removeHandler(handler)
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(level)
    handler.setFormatter(
        _Redacting(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *before],
            processors=[ProcessorFormatter.remove_processors_meta, *written],
        )
    )
    root.addHandler(handler)
    root.setLevel(level)


class _Redacting(ProcessorFormatter):
    """Redacts what a library puts into its sentence before that is one text: an error's words above all."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        plain = logging.makeLogRecord(record.__dict__)
        if isinstance(record.args, dict):
            plain.args = {name: _argument(one, name) for name, one in record.args.items()}
        elif record.args:
            plain.args = tuple(_argument(one) for one in record.args)
        if not isinstance(record.msg, str):
            plain.msg = str(_argument(record.msg))
        try:
            plain.getMessage()
        except (TypeError, ValueError):  # a masked number, say, where the sentence wants one
            plain.args = ()
        return super().format(plain)


def _argument(value: object, name: object = None) -> object:
    if isinstance(value, BaseException):
        return type(value).__qualname__
    return redacted(value, name=name)


def _without_words(_: object, __: str, event: EventDict) -> EventDict:
    """Say of an error what it was and where, and nothing it said: a database's words hold the values of a row."""
    given = event.pop("exc_info", None)
    if isinstance(given, tuple):
        given = given[1]
    error = given if isinstance(given, BaseException) else sys.exc_info()[1] if given else None
    if error is not None:
        event["error"] = " from ".join(type(one).__qualname__ for one in _chain(error))
        event["at"] = [f"{one.filename}:{one.lineno} {one.name}" for one in traceback.extract_tb(error.__traceback__)]
    return event


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, what it came from, and so on; an error that comes round again ends it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
