"""Structured logs: for people on a console, one JSON object a line elsewhere. To standard error."""

import logging
import sys

import structlog

from entrypoints.settings import Settings


def configure_logs(settings: Settings) -> None:
    """Set what is logged and how. Libraries' own loggers are heard from warnings on."""
    level = getattr(logging, settings.log_level.upper())
    logging.basicConfig(
        level=max(level, logging.WARNING), stream=sys.stderr, format="%(levelname)s %(name)s %(message)s"
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            *(
                [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
                if settings.log_format == "json"
                else [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
            ),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
