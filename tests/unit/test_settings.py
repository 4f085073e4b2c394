import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from adapters.embedded import supervisor
from entrypoints.settings import (
    PREFIX,
    BlobStoreSettings,
    CacheSettings,
    DatabaseSettings,
    FaceEmbedderSettings,
    HttpSettings,
    ImageSettings,
    JobQueueSettings,
    ModelsSettings,
    NextVectorIndexSettings,
    Settings,
    SettingsError,
    VectorIndexSettings,
    read_settings,
    setting_names,
)

EXAMPLE = Path(__file__).parents[2] / ".env.example"
SHOWN = re.compile(r"^#?(?P<name>FACEPASS_\w+)=(?P<value>.*)$")


def shown() -> list[tuple[str, str]]:
    """Name and value of every setting in `.env.example`, in order."""
    return [(line["name"], line["value"]) for line in map(SHOWN.match, EXAMPLE.read_text().splitlines()) if line]


def explanations() -> Iterator[tuple[str, str]]:
    """Each setting of `.env.example` with the lines right above it."""
    above: list[str] = []
    for line in EXAMPLE.read_text().splitlines():
        setting = SHOWN.match(line)
        if setting is not None:
            yield setting["name"], " ".join(above)
        above = [*above, line.removeprefix("# ")] if line.startswith("# ") else []


def written(settings: msgspec.Struct, prefix: str = PREFIX) -> dict[str, str]:
    """Settings as an operator writes them; what is None is left empty."""
    found: dict[str, str] = {}
    for name, value in msgspec.structs.asdict(settings).items():
        here = prefix + name.upper()
        if isinstance(value, msgspec.Struct):
            found |= written(value, here + "__")
        elif isinstance(value, bool):
            found[here] = str(value).lower()
        elif isinstance(value, dict):
            found |= {f"{here}__{option.upper()}": text for option, text in value.items()} or {here: ""}
        elif isinstance(value, tuple):
            found[here] = ",".join(value)
        else:
            found[here] = "" if value is None else str(value)
    return found


words = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=","), min_size=1, max_size=30)
names = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,20}", fullmatch=True)
options = st.dictionaries(st.from_regex(r"[a-z]{1,8}(_[a-z]{1,8}){0,2}", fullmatch=True), words, max_size=3)
folders = st.text("abcdefgh/._- ", min_size=1, max_size=30).map(lambda text: Path("/x" + text.strip("/ ")))
postgresql = st.sampled_from(["postgresql://user:p%40ss@host:5432/name", "postgresql://[::1]/name?sslmode=require"])
redis = st.sampled_from(["redis://host", "rediss://user:p%2Fss@host:6380/1", "unix:///run/redis.sock"])
whole = st.integers(min_value=1, max_value=2**31)
amounts = st.floats(min_value=1e-6, max_value=10_000)


def perhaps(values: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.none() | values


any_settings = st.builds(
    Settings,
    environment=st.just("development"),  # production has its secrets looked at: tests/security/test_production.py
    data_dir=perhaps(folders.map(lambda path: Path("/data") / path.relative_to("/"))),
    master_key_file=perhaps(folders.map(lambda path: Path("/keys") / path.relative_to("/"))),
    log_level=st.sampled_from(["debug", "info", "warning", "error"]),
    log_format=st.sampled_from(["console", "json"]),
    database=st.builds(DatabaseSettings, url=perhaps(postgresql), pool_size=whole, timeout=amounts),
    face_embedder=st.builds(
        FaceEmbedderSettings,
        backend=names.filter(lambda name: name not in {"onnx", "insightface"}),
        pack=words,
        options=options,
        providers=st.lists(words, min_size=1, max_size=4).map(tuple),
        threads=st.integers(0, 512),
        detection_size=st.integers(64, 4096),
        queue_limit=st.integers(0, 10_000),
        queue_wait=amounts,
    ),
    vector_index=st.builds(
        VectorIndexSettings,
        backend=st.just("pgvector"),
        name=st.just("first"),
        url=perhaps(postgresql),
        exact_up_to=perhaps(whole),
        half_precision=st.booleans(),
    ),
    next_vector_index=st.builds(
        NextVectorIndexSettings,
        backend=st.just("qdrant"),
        url=st.just("http://host:6333"),
        shards=perhaps(whole),
        replicas=perhaps(whole),
    ),
    blob_store=st.builds(
        BlobStoreSettings,
        backend=st.just("s3"),
        bucket=words,
        encryption=st.sampled_from(["", "AES256", "aws:kms"]),
    ),
    job_queue=st.builds(JobQueueSettings, url=redis, backend=st.just("arq"), upkeep_seconds=amounts, concurrency=whole),
    cache=st.builds(CacheSettings, backend=st.just("redis"), url=redis),
    models=st.builds(ModelsSettings, dir=perhaps(folders), commercial_only=st.booleans(), index_url=perhaps(words)),
    image=st.tuples(whole, amounts, amounts).map(
        lambda drawn: ImageSettings(max_bytes=drawn[0], max_megapixels=min(drawn[1:]), budget_megapixels=max(drawn[1:]))
    ),
    http=st.builds(
        HttpSettings,
        host=words,
        port=st.integers(0, 65535),
        max_body_bytes=whole,
        docs=st.booleans(),
        processes=st.just(1),
    ),
)


def test_nothing_set_gives_the_defaults() -> None:
    assert read_settings({}, dotenv=None) == Settings()


def test_a_server_and_two_busy_commands_fit_into_the_private_database() -> None:
    (takes,) = re.findall(r"^max_connections = (\d+)$", supervisor._SETTINGS, re.MULTILINE)
    kept_for_its_owner = 3  # superuser_reserved_connections, as PostgreSQL has it
    each = 4 * Settings().database.pool_size + 1
    assert 3 * each <= int(takes) - kept_for_its_owner


def test_the_example_has_every_setting_in_order_and_nothing_else() -> None:
    assert [name for name, _ in shown()] == setting_names()


def test_the_example_shows_the_real_defaults() -> None:
    assert dict(shown()) == written(Settings())


def test_the_example_with_every_setting_taken_over_changes_nothing(tmp_path: Path) -> None:
    taken = tmp_path / ".env"
    taken.write_text("\n".join(f"{name}={value}" for name, value in shown()))
    assert read_settings({}, dotenv=taken) == Settings()


def test_the_example_explains_every_setting() -> None:
    assert [name for name, text in explanations() if not text] == []


@given(any_settings)
def test_settings_survive_being_written_and_read(settings: Settings) -> None:
    assert read_settings(written(settings), dotenv=None) == settings


@given(st.sampled_from(setting_names()), st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ_", min_size=1, max_size=8))
def test_a_name_that_is_none_is_refused_by_name(name: str, ending: str) -> None:
    assume(name + ending not in setting_names() and not ending.startswith("__"))
    with pytest.raises(SettingsError, match=rf"^{name}{ending} is no setting"):
        read_settings({name + ending: "1"}, dotenv=None)


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("FACEPASS_HTTP__PROT", "FACEPASS_HTTP__PORT"),
        ("FACEPASS_HTTP_PORT", "FACEPASS_HTTP__PORT"),
        ("FACEPASS_VECTORINDEX__BACKEND", "FACEPASS_VECTOR_INDEX__BACKEND"),
    ],
)
def test_a_typo_is_told_what_was_meant(wrong: str, meant: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{wrong} is no setting\. Did you mean {meant}\?$"):
        read_settings({wrong: "1"}, dotenv=None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FACEPASS_HTTP__PORT", "eight thousand"),
        ("FACEPASS_HTTP__PORT", "65536"),
        ("FACEPASS_HTTP__PORT", "-1"),
        ("FACEPASS_HTTP__PORT", "80.5"),
        ("FACEPASS_HTTP__DOCS", "perhaps"),
        ("FACEPASS_HTTP__PROCESSES", "0"),
        ("FACEPASS_HTTP__PROCESSES", "2"),
        ("FACEPASS_ENVIRONMENT", "staging"),
        ("FACEPASS_LOG_LEVEL", "loud"),
        ("FACEPASS_DATABASE__TIMEOUT", "0"),
        ("FACEPASS_DATABASE__POOL_SIZE", "0"),
        ("FACEPASS_FACE_EMBEDDER__BACKEND", "Black Magic"),
        ("FACEPASS_VECTOR_INDEX__OPTIONS", "folder=/x"),
        ("FACEPASS_BLOB_STORE__ENCRYPTION", "rot13"),
        ("FACEPASS_CACHE__BACKEND", "memcached"),
        ("FACEPASS_FACE_EMBEDDER__DETECTION_SIZE", "63"),
        ("FACEPASS_FACE_EMBEDDER__THREADS", "-1"),
        ("FACEPASS_VECTOR_INDEX__EXACT_UP_TO", "few"),
        ("FACEPASS_IMAGE__BUDGET_MEGAPIXELS", "39"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{name}: "):
        read_settings({name: value}, dotenv=None)


@pytest.mark.parametrize("name", [name for name, value in shown() if re.fullmatch(r"\d+(\.\d+)?", value)])
def test_a_number_is_never_taken_from_words(name: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{name}: "):
        read_settings({name: "many"}, dotenv=None)


@pytest.mark.parametrize(
    "name",
    ["FACEPASS_DATABASE__TIMEOUT", "FACEPASS_JOB_QUEUE__UPKEEP_SECONDS", "FACEPASS_IMAGE__MAX_MEGAPIXELS"],
)
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_number_is_finite(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{name}: "):
        read_settings({name: value}, dotenv=None)


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({"FACEPASS_VECTOR_INDEX__BACKEND": "qdrant"}, "FACEPASS_VECTOR_INDEX__URL"),
        ({"FACEPASS_NEXT_VECTOR_INDEX__BACKEND": "qdrant"}, "FACEPASS_NEXT_VECTOR_INDEX__URL"),
        ({"FACEPASS_NEXT_VECTOR_INDEX__BACKEND": "pgvector"}, "FACEPASS_NEXT_VECTOR_INDEX__NAME"),
        ({"FACEPASS_BLOB_STORE__BACKEND": "s3"}, "FACEPASS_BLOB_STORE__BUCKET"),
        (
            {
                "FACEPASS_BLOB_STORE__BACKEND": "s3",
                "FACEPASS_BLOB_STORE__BUCKET": "faces",
                "FACEPASS_BLOB_STORE__ACCESS_KEY": "half",
            },
            "FACEPASS_BLOB_STORE__SECRET_KEY",
        ),
        ({"FACEPASS_JOB_QUEUE__BACKEND": "arq"}, "FACEPASS_JOB_QUEUE__URL"),
        ({"FACEPASS_CACHE__BACKEND": "redis"}, "FACEPASS_CACHE__URL"),
    ],
)
def test_what_a_backend_cannot_do_without_is_named(given: dict[str, str], missing: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{missing}: "):
        read_settings(given, dotenv=None)


@pytest.mark.parametrize(
    ("given", "ignored"),
    [
        ({"FACEPASS_FACE_EMBEDDER__ROOT": "/x"}, "FACEPASS_FACE_EMBEDDER__ROOT"),
        ({"FACEPASS_VECTOR_INDEX__API_KEY": "secret"}, "FACEPASS_VECTOR_INDEX__API_KEY"),
        ({"FACEPASS_NEXT_VECTOR_INDEX__URL": "postgresql://host/name"}, "FACEPASS_NEXT_VECTOR_INDEX__URL"),
        ({"FACEPASS_BLOB_STORE__BUCKET": "faces"}, "FACEPASS_BLOB_STORE__BUCKET"),
        ({"FACEPASS_JOB_QUEUE__URL": "redis://host"}, "FACEPASS_JOB_QUEUE__URL"),
        ({"FACEPASS_CACHE__URL": "redis://host"}, "FACEPASS_CACHE__URL"),
    ],
)
def test_a_setting_that_the_backend_does_not_know_is_refused(given: dict[str, str], ignored: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{ignored}: is for ") as caught:
        read_settings(given, dotenv=None)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("address", ["nonsense", "redis://:s3cr/et@host", "http://s3cr@host", "redis://host:s3cr"])
def test_a_bad_address_is_refused_and_not_repeated(address: str) -> None:
    given = {"FACEPASS_CACHE__BACKEND": "redis", "FACEPASS_CACHE__URL": address}
    with pytest.raises(SettingsError, match=r"^FACEPASS_CACHE__URL: ") as caught:
        read_settings(given, dotenv=None)
    assert "s3cr" not in str(caught.value)


def test_two_indexes_have_two_storages() -> None:
    same = {"FACEPASS_NEXT_VECTOR_INDEX__BACKEND": "pgvector", "FACEPASS_NEXT_VECTOR_INDEX__NAME": "other"}
    with pytest.raises(SettingsError, match=r"^FACEPASS_NEXT_VECTOR_INDEX__URL: "):
        read_settings(same, dotenv=None)
    halved = {**same, "FACEPASS_NEXT_VECTOR_INDEX__HALF_PRECISION": "true"}
    assert read_settings(halved, dotenv=None).next_vector_index.called == "other"


def test_a_third_partys_options_are_its_own() -> None:
    given = {"FACEPASS_VECTOR_INDEX__OPTIONS__FOLDER": "/x", "FACEPASS_VECTOR_INDEX__OPTIONS__PAGE__SIZE": " 3 "}
    assert read_settings(given, dotenv=None).vector_index.options == {"folder": "/x", "page__size": "3"}


def test_several_processes_need_what_they_can_share(tmp_path: Path) -> None:
    shared = {
        "FACEPASS_HTTP__PROCESSES": "2",
        "FACEPASS_JOB_QUEUE__BACKEND": "arq",
        "FACEPASS_JOB_QUEUE__URL": "redis://host",
        "FACEPASS_CACHE__BACKEND": "redis",
        "FACEPASS_CACHE__URL": "redis://host",
        "FACEPASS_IMAGE__BUDGET_MEGAPIXELS": "80",
    }
    assert read_settings(shared, dotenv=None).http.processes == 2
    for name in ("FACEPASS_JOB_QUEUE__BACKEND", "FACEPASS_CACHE__BACKEND"):
        without = {**shared, name: "", name.replace("BACKEND", "URL"): ""}
        with pytest.raises(SettingsError, match=r"^FACEPASS_HTTP__PROCESSES: "):
            read_settings(without, dotenv=None)
    folder = {"FACEPASS_VECTOR_INDEX__BACKEND": "qdrant", "FACEPASS_VECTOR_INDEX__PATH": str(tmp_path)}
    with pytest.raises(SettingsError, match=r"^FACEPASS_VECTOR_INDEX__PATH: "):
        read_settings({**shared, **folder}, dotenv=None)
    with pytest.raises(SettingsError, match=r"^FACEPASS_IMAGE__BUDGET_MEGAPIXELS: .* at least 80, .*HTTP__PROCESSES$"):
        read_settings({**shared, "FACEPASS_IMAGE__BUDGET_MEGAPIXELS": "79"}, dotenv=None)


def test_a_folder_of_settings_is_no_setting() -> None:
    with pytest.raises(SettingsError, match=r"^FACEPASS_HTTP"):
        read_settings({"FACEPASS_HTTP": "8000"}, dotenv=None)


def test_a_master_key_inside_the_data_folder_is_refused(tmp_path: Path) -> None:
    inside = {"FACEPASS_DATA_DIR": str(tmp_path), "FACEPASS_MASTER_KEY_FILE": str(tmp_path / "master.key")}
    with pytest.raises(SettingsError, match=r"^FACEPASS_MASTER_KEY_FILE: "):
        read_settings(inside, dotenv=None)


def test_a_master_key_is_where_it_is_said_to_be() -> None:
    assert read_settings({}, dotenv=None).master_key_kind == "file"
    assert read_settings({"FACEPASS_MASTER_KEY": "AA=="}, dotenv=None).master_key_kind == "environment"
    kms = {"FACEPASS_MASTER_KEY_BACKEND": "my-kms", "FACEPASS_MASTER_KEY_OPTIONS__REGION": "here"}
    settings = read_settings(kms, dotenv=None)
    assert (settings.master_key_kind, settings.master_key_options) == ("my-kms", {"region": "here"})


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"MASTER_KEY": "AA==", "MASTER_KEY_FILE": "/keys/one"}, "MASTER_KEY_FILE"),
        ({"MASTER_KEY_BACKEND": "file", "MASTER_KEY": "AA=="}, "MASTER_KEY"),
        ({"MASTER_KEY_BACKEND": "environment"}, "MASTER_KEY"),
        ({"MASTER_KEY_BACKEND": "my-kms", "MASTER_KEY": "AA=="}, "MASTER_KEY"),
        ({"MASTER_KEY_BACKEND": "my-kms", "MASTER_KEY_FILE": "/keys/one"}, "MASTER_KEY_FILE"),
        ({"MASTER_KEY_OPTIONS__REGION": "here"}, "MASTER_KEY_OPTIONS"),
    ],
)
def test_two_master_keys_are_refused(given: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError, match=f"^FACEPASS_{named}: ") as refused:
        read_settings({f"FACEPASS_{name}": value for name, value in given.items()}, dotenv=None)
    assert "AA==" not in str(refused.value)


def test_the_environment_goes_before_the_file(tmp_path: Path) -> None:
    kept = tmp_path / ".env"
    kept.write_text("FACEPASS_HTTP__PORT=1\nFACEPASS_HTTP__HOST=example\n")
    http = read_settings({"FACEPASS_HTTP__PORT": "2"}, dotenv=kept).http
    assert (http.port, http.host) == (2, "example")


def test_a_typo_in_the_file_is_refused_by_name(tmp_path: Path) -> None:
    kept = tmp_path / ".env"
    kept.write_text("FACEPASS_HTTP__PROT=1\n")
    with pytest.raises(SettingsError, match=r"^FACEPASS_HTTP__PROT "):
        read_settings({}, dotenv=kept)


def test_an_empty_value_is_as_if_it_were_not_there() -> None:
    assert read_settings(dict.fromkeys(setting_names(), "  "), dotenv=None) == Settings()


def test_other_programs_variables_are_left_alone() -> None:
    assert read_settings({"PATH": "/bin", "FACEPASSPORT": "1", "FACEPASS_TEST_SHARED": "/x"}, dotenv=None) == Settings()
