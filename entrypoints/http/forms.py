"""Multipart forms, read in memory.

Litestar's own reader writes larger files to the disk as they came, and an image is not to touch it unsealed.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from multipart import MultipartSegment, ParserError, ParserLimitReached, PushMultipartParser, parse_options_header

from domain.errors import InvalidValue, TooManyItems

PARTS = 300
"""As many parts as one form may have: a hundred images with their fields, and more."""


@dataclass(frozen=True, slots=True)
class Part:
    """One field of a form, or one file."""

    name: str
    filename: str | None
    """None for a field."""
    content: bytes

    def text(self) -> str:
        """Return a field's text. Raises `InvalidValue` unless it is UTF-8."""
        try:
            return self.content.decode()
        except UnicodeDecodeError as error:
            raise InvalidValue("this is neither a file, with a filename, nor text in UTF-8", field=self.name) from error


def read_form(body: bytes, content_type: str) -> list[Part]:
    """Return the parts of a form in the order in which they came.

    Raises `InvalidValue` for what is no form and `TooManyItems` for more than `PARTS` parts.
    """
    boundary = parse_options_header(content_type)[1].get("boundary")
    if not boundary:
        raise InvalidValue("the content type of a form names its boundary", field="body")
    try:
        return list(_parts(body, boundary))
    except ParserLimitReached as error:
        raise TooManyItems(f"a form has at most {PARTS} parts, with short headers") from error
    except (ParserError, ValueError) as error:  # ValueError: headers that are not UTF-8
        raise InvalidValue("this is not a complete multipart form", field="body") from error


def _parts(body: bytes, boundary: str) -> Iterator[Part]:
    segment: MultipartSegment | None = None
    content = bytearray()
    with PushMultipartParser(boundary, content_length=len(body), max_segment_count=PARTS) as parser:
        for event in parser.parse(body):
            if isinstance(event, MultipartSegment):
                segment, content = event, bytearray()
            elif event:
                content += event
            elif segment is not None:
                yield Part(segment.name or "", segment.filename or None, bytes(content))
                segment = None
