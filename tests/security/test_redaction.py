import json
import logging
import time
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from entrypoints.logs import configure_logs
from entrypoints.redaction import _IN_TEXT, _masked, redact, redacted_text
from entrypoints.settings import Settings

IMAGE = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 8
JWT = "eyJhbGciOiJFZERTQSIsImtpZCI6ImsxIn0.eyJzdWIiOiJqYW5lIn0.c2lnbmF0dXJl-_A"

BY_FORM = {
    "an API key": "fp_5x_Omadx-brOSDLtqBqZ8HWtzMEIMFwC4MCdBfHY5DA",
    "a refresh token": "fr_5x_Omadx-brOSDLtqBqZ8HWtzMEIMFwC4MCdBfHY5DA",
    "a one-time link": "fl_5x_Omadx-brOSDLtqBqZ8HWtzMEIMFwC4MCdBfHY5DA",
    "an access token": JWT,
    "a cut access token": JWT[:60],
    "an e-mail address": "jane.doe+x@example.org",
    "an image in base64": b64encode(IMAGE).decode(),
    "a private key": "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ\n-----END PRIVATE KEY-----",
}
"""Known wherever they stand."""

BY_NAME = {
    "password": "correct horse",
    "new_password": "correct horse",
    "password_hash": "$argon2id$v=19$m=65536",
    "secret": "s3cr3t-of-mine",
    "secret_key": "s3cr3t-of-mine",
    "webhook_secret": "s3cr3t-of-mine",
    "token": "opaque-one",
    "refresh_token": "opaque-one",
    "Authorization": "opaque-one",
    "api_key": "opaque-one",
    "X-API-Key": "opaque-one",
    "cookie": "opaque-one",
    "credential": "opaque-one",
    "master_key": "opaque-one",
    "data_key": "opaque-one",
    "external_id": "emp-17-jane",
    "email": "jane at home",
    "name": "Jane Doe",
    "display_name": "Jane Doe",
    "metadata": {"department": "janitor"},
    "filename": "jane-doe.jpg",
    "filenames": ["jane-doe.jpg"],
    "image": IMAGE,
    "images": [IMAGE],
    "embedding": [0.314159, 0.271828, 0.141421],
    "probe_embedding": [0.314159, 0.271828, 0.141421],
    "template": np.array([0.3125, 0.6875]),
    "vector": (0.125, 0.25),
    "address": "192.0.2.44",
    "body": "anything",
}
"""Known by the field that they stand in."""

WAYS: dict[str, Callable[[str, str], None]] = {
    "in the message": lambda _, value: structlog.get_logger("t").warning(f"it was {value} there"),
    "in a field": lambda _, value: structlog.get_logger("t").warning("said", what=value),
    "in a nested field": lambda _, value: structlog.get_logger("t").warning("said", what=[{"x": (value,)}]),
    "as a name": lambda _, value: structlog.get_logger("t").warning("said", what={value: 1}),
    "bound": lambda _, value: structlog.get_logger("t").bind(what=value).warning("said"),
    "in a library's message": lambda _, value: logging.getLogger("library").warning(f"it was {value} there"),  # noqa: G004 - as libraries do
    "in a library's argument": lambda _, value: logging.getLogger("library").warning("it was %s there", value),
    "in a library's object": lambda _, value: logging.getLogger("library").warning("it was %r", [{"x": value}]),
    "in a library's error": lambda _, value: logging.getLogger("library").warning("failed: %s", ValueError(value)),
    "as a library's error": lambda _, value: logging.getLogger("library").error(ValueError(value)),
    "in an address": lambda _, value: structlog.get_logger("t").warning("GET /x?key=" + value),
}


def in_a_chain(value: object) -> None:
    try:
        try:
            {}[value if isinstance(value, str) else str(value)]
        except KeyError as error:
            raise RuntimeError(f"parameters: {value}") from error
    except RuntimeError as error:
        structlog.get_logger("t").error("failed", exc_info=error)
        logging.getLogger("library").exception("failed")


def in_context(name: str, value: object) -> None:
    with structlog.contextvars.bound_contextvars(**{name: value}):
        structlog.get_logger("t").warning("said")


NAMED_WAYS: dict[str, Callable[[str, object], None]] = {
    "as a field": lambda name, value: structlog.get_logger("t").warning("said", **{name: value}),
    "nested": lambda name, value: structlog.get_logger("t").warning("said", what={"deep": [{name: value}]}),
    "in upper case": lambda name, value: structlog.get_logger("t").warning("said", what={name.upper(): value}),
    "in a library's argument": lambda name, value: logging.getLogger("library").warning("said %s", {name: value}),
    "in a library's named argument": lambda name, value: logging.getLogger("library").warning(
        "%(a)s", {"a": {name: value}}
    ),
    "in context": in_context,
    "in a chain": lambda _, value: in_a_chain(value),
}


Said = Callable[[Callable[[], None]], str]


@pytest.fixture(params=["json", "console"])
def said(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Said:
    """Logs are set up, something is said, and this is what stands on standard error."""

    def heard(speak: Callable[[], None]) -> str:
        configure_logs(Settings(log_format=request.param))
        speak()
        line = capsys.readouterr().err
        assert line.strip()
        return line

    return heard


def told(value: object) -> list[str]:
    """Parts that a line would hold if it told the value."""
    if isinstance(value, str):
        return [value[-16:], value[len(value) // 2 :][:16]]
    if isinstance(value, bytes):
        return [repr(value)[10:30], value.hex()[:16], b64encode(value).decode()[:16]]
    if isinstance(value, dict):
        return [str(one) for one in value.values()]
    return [part for one in list(value) for part in (told(one) if isinstance(one, bytes | str) else [f"{one:g}"])]  # type: ignore[call-overload]  # a sequence, of a test's own


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", BY_FORM)
def test_a_secret_is_known_by_its_form(said: Said, kind: str, way: str) -> None:
    line = said(lambda: WAYS[way](kind, BY_FORM[kind]))
    assert [part for part in told(BY_FORM[kind]) if part in line] == []


@pytest.mark.parametrize("way", NAMED_WAYS)
@pytest.mark.parametrize("name", BY_NAME)
def test_a_secret_is_known_by_its_field(said: Said, name: str, way: str) -> None:
    line = said(lambda: NAMED_WAYS[way](name, BY_NAME[name]))
    assert [part for part in told(BY_NAME[name]) if part in line] == []


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("Authorization: Bearer abcdefghij", "abcdefghij"),
        ("authorization: basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
        ("postgresql://facepass:hunter22@db/facepass", "hunter22"),
        ("redis://:hunter22@cache:6379/1", "hunter22"),
        ("password=hunter22 host=db", "hunter22"),
        ('{"external_id": "emp-17"}', "emp-17"),
        ("{'external_id': 'emp-17'}", "emp-17"),
        ("[parameters: {'external_id': 'emp-17', 'metadata': {'a': 'Jane'}}]", "Jane"),
        ("DETAIL: Key (external_id)=(emp-17) exists", "emp-17"),
        ("client_secret: hunter22", "hunter22"),
        ("[0.012, -0.34, 0.56, 0.78, 0.9, 0.1, 0.2, 0.3, 0.4]", "0.56"),
        ("array([0.012, -0.34, 0.56, 0.78, 0.9, 0.1, 0.2, 0.3, 0.4])", "0.56"),
        (f"it was {IMAGE[:40]!r}", "xff"),
    ],
)
def test_a_secret_in_a_sentence_is_masked(said: Said, text: str, secret: str) -> None:
    assert secret not in said(lambda: structlog.get_logger("t").warning(text))
    assert secret not in said(lambda: logging.getLogger("library").warning("%s", text))


def test_what_is_harmless_is_told(said: Said) -> None:
    some_id = uuid4()
    fields = {
        "reference": some_id,
        "path": Path("/var/lib/facepass"),
        "references": 104,
        "took_ms": 1.5,
        "code": "port_busy",
        "nothing": None,
        "digest": "ab" * 32,
        "reason": "it cannot be reached at http://qdrant:6333",
    }
    line = said(lambda: structlog.get_logger("t").warning("index_behind", **fields))
    told_parts = (
        "index_behind",
        str(some_id),
        "/var/lib/facepass",
        "104",
        "1.5",
        "port_busy",
        "ab" * 32,
        "http://qdrant",
    )
    assert [part for part in told_parts if part not in line] == []
    assert "***" not in line
    assert "3 of seven at 2.5" in said(
        lambda: logging.getLogger("library").warning("%d of %s at %.1f", 3, "seven", 2.5)
    )


def test_an_error_of_a_library_is_told_by_its_kind_and_place(said: Said) -> None:
    line = said(lambda: in_a_chain("Jane Doe"))
    assert "Jane" not in line
    assert line.count("RuntimeError from KeyError") == 2
    assert line.count("test_redaction.py") >= 2


nested = st.recursive(
    st.just("fp_" + "s" * 20) | st.just(b"s" * 20) | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3) | st.tuples(inner)
    ),
    max_leaves=12,
)


@given(nested)
def test_nothing_is_hidden_by_depth(value: object) -> None:
    line = json.dumps(redact(None, "info", {"event": "x", "what": value}))
    assert "s" * 20 not in line


@given(
    st.dictionaries(st.sampled_from(sorted(BY_NAME)), st.text("Q", min_size=6, max_size=9), max_size=3),
    st.integers(0, 4),
)
def test_a_masked_field_is_masked_at_any_depth(fields: dict[str, str], depth: int) -> None:
    value: object = fields
    for _ in range(depth):
        value = [{"inner": value}]
    assert "QQQQQQ" not in json.dumps(redact(None, "info", {"event": "x", "what": value}))


@given(
    st.lists(st.sampled_from([*BY_FORM.values(), *BY_NAME, "=", ": ", "x", " ", "'emp'", "Bearer ", "b'", "://u:p@"]))
)
def test_no_short_way_lets_through_what_the_long_one_finds(parts: list[str]) -> None:
    text = "".join(parts)[:119]
    assert redacted_text(text) == _IN_TEXT.sub(_masked, text)


@given(st.text(max_size=300))
def test_any_text_can_be_redacted(text: str) -> None:
    redact(None, "info", {"event": text, text: text})


@pytest.mark.parametrize(
    "text",
    [
        "a" * 100_000,
        "a." * 50_000,
        "eyJ" * 30_000,
        "=:" * 50_000,
        "x@" * 50_000,
        "[1, " * 20_000,
        "\\x" * 40_000,
        "a://" * 20_000,
    ],
)
def test_no_text_takes_long(text: str) -> None:
    began = time.process_time()
    redact(None, "info", {"event": text})
    assert time.process_time() - began < 0.5
