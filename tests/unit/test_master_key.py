import base64
import multiprocessing
import os
from pathlib import Path

import pytest

from adapters.security.master_key import LocalMasterKey, MasterKeyError, from_text, load_or_create, not_random
from adapters.security.secret import KEY_LENGTH, Secret

SECRET = bytes(range(KEY_LENGTH))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "facepass" / "master.key"


def write(path: Path, content: bytes, mode: int = 0o600) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)


def test_it_is_made_once_and_read_from_then_on(path: Path) -> None:
    made = load_or_create(path)
    again = load_or_create(path)
    with_data = load_or_create(path, refusal="there is data: put it back from the backup")
    assert (made.created, again.created, with_data.created) == (True, False, False)
    assert made.secret == again.secret == with_data.secret


def test_two_installations_have_two_keys(tmp_path: Path) -> None:
    one, other = (load_or_create(tmp_path / name).secret for name in ("a", "b"))
    assert one != other


def test_only_its_owner_can_read_it(path: Path) -> None:
    before = os.umask(0)
    try:
        load_or_create(path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert list(path.parent.iterdir()) == [path]


def test_the_file_says_that_it_must_be_backed_up(path: Path) -> None:
    secret = load_or_create(path).secret
    *comments, line = path.read_text().splitlines()
    assert all(comment.startswith("# ") for comment in comments)
    assert "Back it up" in path.read_text()
    assert base64.b64decode(line) == secret.value


def test_a_file_written_by_hand_is_read(path: Path) -> None:
    write(path, b"\n  " + base64.b64encode(SECRET) + b"  \r\n# mine\n")
    assert load_or_create(path, refusal="there is data: put it back from the backup").secret == Secret(SECRET)


def test_a_mounted_secret_may_be_a_symbolic_link(path: Path) -> None:
    write(path.with_name("mounted"), base64.b64encode(SECRET), mode=0o400)
    path.symlink_to("mounted")
    assert load_or_create(path, refusal="there is data: put it back from the backup").secret == Secret(SECRET)


def test_data_without_its_key_stops(path: Path) -> None:
    with pytest.raises(MasterKeyError, match="there is data") as refused:
        load_or_create(path, refusal="there is data: put it back from the backup")
    assert str(path) in str(refused.value)
    assert "backup" in str(refused.value)
    assert not path.parent.exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610, 0o644])
def test_a_file_that_others_can_open_is_refused(path: Path, mode: int) -> None:
    write(path, base64.b64encode(SECRET), mode)
    with pytest.raises(MasterKeyError, match="chmod 600"):
        load_or_create(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"# only a comment\n",
        base64.b64encode(SECRET[:-1]),
        base64.b64encode(SECRET + b"x"),
        base64.b64encode(SECRET)[:-2],
        b"!" * 44,
        SECRET,
        b"\xff\xfe" * 22,
        base64.b64encode(SECRET) + b"\n" + base64.b64encode(SECRET),
        b"#" * 5000 + b"\n" + base64.b64encode(SECRET),
    ],
    ids=["empty", "comment", "short", "long", "cut", "not base64", "raw", "not text", "two", "huge"],
)
def test_a_file_that_holds_no_key_is_refused_and_left_as_it_is(path: Path, content: bytes) -> None:
    write(path, content)
    with pytest.raises(MasterKeyError, match="does not hold a master key"):
        load_or_create(path)
    assert path.read_bytes() == content


def test_a_folder_in_its_place_is_refused(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(MasterKeyError, match="Is a directory"):
        load_or_create(path)


def test_a_pipe_in_its_place_is_refused_without_waiting_for_a_writer(path: Path) -> None:
    path.parent.mkdir()
    os.mkfifo(path, 0o600)
    with pytest.raises(MasterKeyError, match="is not a file"):
        load_or_create(path)


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(MasterKeyError, match="Not a directory"):
        load_or_create(tmp_path / "file" / "master.key")


def test_processes_that_start_at_once_end_with_one_key(path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        fingerprints = pool.starmap(load_and_tell, [(path,)] * 16, chunksize=1)
    assert len({fingerprint for fingerprint, _ in fingerprints}) == 1
    assert sum(created for _, created in fingerprints) == 1
    assert list(path.parent.iterdir()) == [path]


def load_and_tell(path: Path) -> tuple[bytes, bool]:
    loaded = load_or_create(path)
    return LocalMasterKey(loaded.secret).fingerprint, loaded.created


def test_no_error_and_no_representation_tells_the_secret(path: Path) -> None:
    line = base64.b64encode(SECRET)
    write(path, line + b"\n" + line)
    with pytest.raises(MasterKeyError) as refused:
        load_or_create(path)
    assert line.decode() not in str(refused.value)
    assert repr(Secret(SECRET)) == "Secret()"


def test_a_secret_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Secret(b"short")


def test_the_fingerprint_is_none_of_the_keys_in_use() -> None:
    secret = Secret(SECRET)
    fingerprint = LocalMasterKey(secret).fingerprint
    assert len(fingerprint) == 16
    assert fingerprint not in (
        *(secret.derive(purpose)[:16] for purpose in ("fingerprint", "wrap", "master")),
        SECRET[:16],
    )


def test_a_setting_holds_one_as_a_file_does() -> None:
    assert from_text(f" {base64.b64encode(SECRET).decode()}\n") == Secret(SECRET)


@pytest.mark.parametrize("text", ["", "secret", "A" * 43, base64.b64encode(SECRET[:-1]).decode(), "\u00e9" * 44])
def test_a_setting_that_holds_none_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(MasterKeyError, match="does not hold a master key") as refused:
        from_text(text)
    assert not text or text not in str(refused.value)


@pytest.mark.parametrize(
    "value",
    [
        bytes(32),
        b"\xff" * 32,
        b"\x01\x02" * 16,
        bytes(range(32)),
        bytes(range(255, 223, -1)),
        b"correct horse battery staple ok!",
    ],
    ids=["zeros", "ones", "two", "counting", "counting down", "text"],
)
def test_what_nobody_drew_at_random_is_weak(value: bytes) -> None:
    assert not_random(Secret(value)) is not None


def test_what_was_drawn_at_random_is_not_weak() -> None:
    assert [not_random(Secret(os.urandom(KEY_LENGTH))) for _ in range(10_000)] == [None] * 10_000
