import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.user import Registration
from entrypoints.production import weakness
from entrypoints.settings import SettingsError, read_settings

STRONG = "Zm9vYmFyLWJhei1xdXV4"
S3 = {"FACEPASS_BLOB_STORE__BACKEND": "s3", "FACEPASS_BLOB_STORE__BUCKET": "b", "FACEPASS_BLOB_STORE__ACCESS_KEY": "k"}
ARQ = {"FACEPASS_JOB_QUEUE__BACKEND": "arq"}
REDIS = {"FACEPASS_CACHE__BACKEND": "redis"}
QDRANT = {"FACEPASS_VECTOR_INDEX__BACKEND": "qdrant"}
WEAK = [
    "postgres",
    "password",
    "minioadmin",
    "facepass",
    "changeme",
    "Password123!",
    "admin1234567890",
    "x7Gq-9k",
    "a" * 40,
]

CASES: list[tuple[dict[str, str], str, str]] = [
    ({}, "FACEPASS_DATABASE__URL", "postgresql://facepass:{}@db:5432/facepass"),
    ({}, "FACEPASS_DATABASE__URL", "postgresql://facepass:{}@localhost/facepass"),
    ({}, "FACEPASS_DATABASE__URL", "postgresql://facepass@db/facepass?password={}"),
    ({}, "FACEPASS_VECTOR_INDEX__URL", "postgresql://v:{}@vectors/v"),
    (ARQ, "FACEPASS_JOB_QUEUE__URL", "redis://:{}@redis:6379/0"),
    (REDIS, "FACEPASS_CACHE__URL", "rediss://u:{}@redis:6379/1"),
    (S3, "FACEPASS_BLOB_STORE__SECRET_KEY", "{}"),
    (QDRANT | {"FACEPASS_VECTOR_INDEX__URL": "https://q:6333"}, "FACEPASS_VECTOR_INDEX__API_KEY", "{}"),
]
MISSING: list[tuple[dict[str, str], str, bool]] = [
    ({"FACEPASS_DATABASE__URL": "postgresql://facepass@db/facepass"}, "FACEPASS_DATABASE__URL", True),
    ({"FACEPASS_DATABASE__URL": "postgresql://facepass:@db/facepass"}, "FACEPASS_DATABASE__URL", True),
    ({"FACEPASS_DATABASE__URL": "postgresql://facepass@127.0.0.1/facepass"}, "FACEPASS_DATABASE__URL", False),
    (
        {"FACEPASS_DATABASE__URL": "postgresql://facepass@/facepass?host=/run/postgresql"},
        "FACEPASS_DATABASE__URL",
        False,
    ),
    ({"FACEPASS_DATABASE__URL": "postgresql://facepass@localhost/f?host=db"}, "FACEPASS_DATABASE__URL", True),
    ({"FACEPASS_DATABASE__URL": "postgresql://facepass@db/f?sslcert=/c.pem"}, "FACEPASS_DATABASE__URL", False),
    (ARQ | {"FACEPASS_JOB_QUEUE__URL": "redis://redis:6379"}, "FACEPASS_JOB_QUEUE__URL", True),
    (ARQ | {"FACEPASS_JOB_QUEUE__URL": "unix:///run/redis.sock"}, "FACEPASS_JOB_QUEUE__URL", False),
    (REDIS | {"FACEPASS_CACHE__URL": "redis://10.0.0.3"}, "FACEPASS_CACHE__URL", True),
    (REDIS | {"FACEPASS_CACHE__URL": "redis://[::1]:6379"}, "FACEPASS_CACHE__URL", False),
    (QDRANT | {"FACEPASS_VECTOR_INDEX__URL": "https://q:6333"}, "FACEPASS_VECTOR_INDEX__API_KEY", True),
    (QDRANT | {"FACEPASS_VECTOR_INDEX__URL": "http://localhost:6333"}, "FACEPASS_VECTOR_INDEX__API_KEY", False),
]
PRODUCTION = {"FACEPASS_ENVIRONMENT": "production"}


@pytest.mark.parametrize(
    ("environment", "asked", "who"),
    [
        ("development", {}, Registration.OPEN),
        ("production", {}, Registration.CLOSED),
        ("production", {"FACEPASS_ACCOUNTS__REGISTRATION": "open"}, Registration.OPEN),
        ("production", {"FACEPASS_ACCOUNTS__REGISTRATION": "invitation"}, Registration.INVITATION),
        ("development", {"FACEPASS_ACCOUNTS__REGISTRATION": "closed"}, Registration.CLOSED),
    ],
)
def test_nobody_registers_in_production_unless_it_was_asked_for(
    environment: str, asked: dict[str, str], who: Registration
) -> None:
    settings = read_settings({"FACEPASS_ENVIRONMENT": environment, **asked}, dotenv=None)
    assert settings.registration is who


@pytest.mark.parametrize("secret", WEAK)
@pytest.mark.parametrize(("given_", "name", "form"), CASES)
def test_a_default_or_weak_secret_stops_a_start_in_production(
    given_: dict[str, str], name: str, form: str, secret: str
) -> None:
    settings = {**given_, name: form.format(secret.replace("!", "%21") if "://" in form else secret)}
    read_settings(settings, dotenv=None)
    with pytest.raises(SettingsError, match=rf"^{name}: ") as caught:
        read_settings({**settings, **PRODUCTION}, dotenv=None)
    assert secret not in str(caught.value).replace("FACEPASS_", "").replace("password is", "").replace(
        "password repeats", ""
    )


@pytest.mark.parametrize(("given_", "name", "form"), CASES)
def test_a_strong_secret_stops_nothing(given_: dict[str, str], name: str, form: str) -> None:
    read_settings({**given_, name: form.format(STRONG), **PRODUCTION}, dotenv=None)


@pytest.mark.parametrize(("settings", "name", "refused"), MISSING)
def test_a_missing_secret_stops_a_start_where_the_server_is_another_machine(
    settings: dict[str, str], name: str, *, refused: bool
) -> None:
    if not refused:
        read_settings({**settings, **PRODUCTION}, dotenv=None)
        return
    with pytest.raises(SettingsError, match=rf"^{name}: "):
        read_settings({**settings, **PRODUCTION}, dotenv=None)


def test_production_needs_no_setting_at_all() -> None:
    assert read_settings(PRODUCTION, dotenv=None).environment == "production"


@given(st.text(max_size=11))
def test_nothing_short_is_strong(secret: str) -> None:
    assert weakness(secret) is not None


@given(st.binary(min_size=18, max_size=32).map(bytes.hex).filter(lambda text: len(set(text)) > 5))
def test_what_is_random_and_long_is_strong(secret: str) -> None:
    assert weakness(secret) is None
