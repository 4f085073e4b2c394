"""The small process that owns an embedded PostgreSQL, for as long as somebody uses it.

`EmbeddedPostgres` starts this file as a script, isolated (`python -I -S supervisor.py <orders>`): it imports the
standard library alone, so that it starts in milliseconds and stays small.

Who lives is judged by locks, never by process numbers: the kernel drops a lock with the process that holds it.

- `start.lock` is held by whoever changes what runs: a starting owner, or the supervisor while it leaves.
- `supervisor.lock` is held by the one supervisor.
- `server.lock` is held by the supervisor's children, inherited through fork: while it is held, something of an
  earlier server may still write to the cluster.
- `owners/*` is one file for each process that uses the server.
"""

import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Final, NamedTuple, NoReturn, final

if sys.platform != "win32":
    import fcntl

ROLE: Final = "facepass"
DATABASE: Final = "facepass"
PORT: Final = 5432
MAJOR: Final = "18"
READY: Final = "ready"
POLL: Final = 0.02
OWNER_ONLY: Final = 0o700

# LC_ALL is set because macOS otherwise starts threads to find the locale, and a postmaster with threads refuses.
ENVIRONMENT: Final = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C"}

_TICK: Final = 0.2
_ORPHAN_PATIENCE: Final = 60.0
_RESTARTS: Final = 5
_RESTART_WINDOW: Final = 60.0
_LOG_LIMIT: Final = 1 << 20
_PR_SET_PDEATHSIG: Final = 1
_LOG_DAYS: Final = 6

# The owner's password opens every database of this private server and nothing else does: no trust, no peer, no
# superuser from outside (maintenance goes through single-user mode while the server is down).
_HBA: Final = f"""\
# Written by facepass at each start.
local all {ROLE} scram-sha-256
local all all reject
"""

_SETTINGS: Final = """\
# Written by facepass at each start; lines of your own belong in ../postgresql.local.conf.
cluster_name = 'facepass'
max_connections = 90
shared_buffers = '128MB'
max_wal_size = '512MB'
min_wal_size = '32MB'
jit = off
max_logical_replication_workers = 0
timezone = 'UTC'
log_timezone = 'UTC'
lc_messages = 'C'
logging_collector = on
log_directory = '../log'
log_filename = 'postgresql-%a.log'
log_file_mode = 0600
log_rotation_age = '1d'
log_rotation_size = 0
log_truncate_on_rotation = on
"""

_INCLUDES: Final = "\ninclude 'facepass.conf'\ninclude_if_exists '../postgresql.local.conf'\n"


class Orders(NamedTuple):
    """What the launcher tells its supervisor: paths, the account to become (as root), and how long to linger."""

    folder: str
    install: str
    sockets: str
    linger: float
    uid: int | None
    gid: int | None


class SupervisionFailed(Exception):
    """The server could not be brought up, or not be kept up; the message says why."""


def accepts_connections(sockets: Path) -> bool:
    """Whether a server behind the socket folder lets clients in: what `pg_isready` asks, without a password."""
    body = struct.pack("!I", 3 << 16) + f"user\0{ROLE}\0database\0{DATABASE}\0\0".encode()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(2.0)
            client.connect(str(sockets / f".s.PGSQL.{PORT}"))
            client.sendall(struct.pack("!I", len(body) + 4) + body)
            answer = client.recv(1024)
    except OSError:
        return False
    # 57P03: starting up, shutting down or recovering. Any other refusal comes from a server that is up.
    return answer.startswith(b"R") or (answer.startswith(b"E") and b"C57P03\0" not in answer)


def locked(path: Path, *, clear: bool = False) -> bool:
    """Whether a living process holds this lock file; `clear` removes the file where none does."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if clear else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        if clear:
            path.unlink(missing_ok=True)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def living_owners(folder: Path, *, clear: bool = False) -> int:
    """How many processes use the server; `clear` removes what dead ones left."""
    try:
        return sum([locked(path, clear=clear) for path in (folder / "owners").iterdir()])
    except FileNotFoundError:
        return 0


def postmaster_pid(folder: Path) -> int | None:
    """The process number in the cluster's own lock file, which says nothing about its being alive."""
    try:
        return int((folder / "data" / "postmaster.pid").read_text(encoding="utf-8").split("\n", 1)[0])
    except (OSError, ValueError):
        return None


def private_folder(path: Path, uid: int) -> None:
    """Make a folder that only `uid` can enter, or make sure that an existing one is.

    Raises:
        SupervisionFailed: where somebody else owns it, or put something else in its place.
    """
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=OWNER_ONLY)
        if os.geteuid() != uid:
            os.chown(path, uid, -1, follow_symlinks=False)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != uid:
        raise SupervisionFailed(f"{path} must be a folder of user {uid}, and belongs to user {found.st_uid}; remove it")
    if stat.S_IMODE(found.st_mode) != OWNER_ONLY:
        path.chmod(OWNER_ONLY)


def _say(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime())} UTC supervisor[{os.getpid()}] {text}\n")
    sys.stderr.flush()


def _serves(pid: int, data: Path) -> bool:
    """Whether the process is a server on this cluster: its lock file may name a number that was given out again."""
    if Path("/proc/self/cwd").exists():
        with contextlib.suppress(OSError):
            return Path(f"/proc/{pid}/cwd").readlink() == data  # where every process of a server stands
        return False
    asked = subprocess.run(  # noqa: S603 - a fixed command and a number
        ["/bin/ps", "-ww", "-o", "command=", "-p", str(pid)],
        capture_output=True,
        text=True,
        check=False,
        env=ENVIRONMENT,
    )
    return str(data) in asked.stdout


def _ending_with_me(number: signal.Signals) -> Callable[[], None] | None:
    """A hook for a child: have the kernel send it a signal when this process dies (Linux; None elsewhere)."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def arrange() -> None:
        prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
        if os.getppid() != parent:  # it died before the kernel was told
            os._exit(1)

    return arrange


def _replaced(path: Path, text: str) -> None:
    """Write a small file so that a reader, or a crash, sees the old text or the new one."""
    with contextlib.suppress(OSError):
        if path.read_text(encoding="utf-8") == text:
            return
    fresh = path.with_name(path.name + ".new")
    with fresh.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)
    _synced(path.parent)


def _synced(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@final
class Supervisor:
    """Brings the server up, keeps it up while it has owners, and ends it, fast and cleanly, after the last one."""

    def __init__(self, orders: Orders, report: int) -> None:
        self._folder = Path(orders.folder)
        self._data = self._folder / "data"
        self._install = Path(orders.install)
        self._sockets = Path(orders.sockets)
        self._linger = orders.linger
        self._report: int | None = report
        self._told_to_stop = False

    def run(self) -> None:
        """Supervise until the last owner has gone, a signal says so, or the server cannot be kept up."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(self._sole())
                self._supervise()
            except Exception as error:  # noqa: BLE001 - whatever it was, the waiting owner is told
                _say(traceback.format_exc() if not isinstance(error, SupervisionFailed) else f"failed: {error}")
                self._tell(str(error) or repr(error))
            finally:
                if self._sockets.parent != self._folder:
                    with contextlib.suppress(OSError):
                        self._sockets.rmdir()

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._told_to_stop = True

    def _tell(self, text: str) -> None:
        """Answer the process that started this one, which may have given up waiting."""
        if self._report is not None:
            with contextlib.suppress(OSError):
                os.write(self._report, text.encode())
            os.close(self._report)
            self._report = None

    @contextlib.contextmanager
    def _sole(self) -> Iterator[None]:
        lock = self._folder / "supervisor.lock"
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            # A few tries, since someone who only asks whether it is held holds it for a moment.
            for _ in range(50):
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                time.sleep(POLL)
            else:
                raise SupervisionFailed("another supervisor runs already")
            yield
        finally:
            os.close(descriptor)

    # ------------------------------------------------------------------------------------------- while it runs

    def _supervise(self) -> None:
        for name in ("log", "owners"):
            private_folder(self._folder / name, os.geteuid())
        private_folder(self._sockets, os.geteuid())
        for log in (self._folder / "log").iterdir():
            # A server that ran past midnight would have emptied its weekday's log of last week; short ones never do.
            if time.time() - log.stat().st_mtime > _LOG_DAYS * 86400:
                log.unlink()
        with self._only_writer() as writer:
            self._prepare(writer)
            server = self._launched(writer)
        crashes: list[float] = []
        try:
            while self._wanted():
                if server.poll() is None:
                    self._notice_readiness()
                    time.sleep(POLL if self._report is not None else _TICK)
                    continue
                now = time.monotonic()
                crashes = [*(then for then in crashes if now - then < _RESTART_WINDOW), now]
                _say(f"the server ended with status {server.returncode}")
                if self._report is not None:
                    raise SupervisionFailed(f"PostgreSQL ended while it started (status {server.returncode})")
                if len(crashes) > _RESTARTS:
                    raise SupervisionFailed(f"PostgreSQL ended {len(crashes)} times in {_RESTART_WINDOW:.0f} s")
                time.sleep(0.1 * len(crashes))
                with self._only_writer() as writer:
                    server = self._launched(writer)
        finally:
            self._ended(server)

    def _notice_readiness(self) -> None:
        if self._report is not None and accepts_connections(self._sockets):
            _say("the server is ready")
            self._tell(READY)

    def _wanted(self) -> bool:
        """Whether anybody needs the server; where not, the start lock is kept, so that nobody joins what ends.

        A newcomer who waits for that lock then finds no supervisor, and starts one.
        """
        quiet_since = time.monotonic()
        while not self._told_to_stop:
            if living_owners(self._folder, clear=True):
                return True
            if time.monotonic() - quiet_since < self._linger:
                time.sleep(min(_TICK, self._linger / 4))
                continue
            descriptor = os.open(self._folder / "start.lock", os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                time.sleep(POLL)
                continue
            if living_owners(self._folder, clear=True):
                os.close(descriptor)
                return True
            _say("nobody uses the server any more")
            return False  # the lock goes with this process
        _say("told to stop")
        return False

    @staticmethod
    def _ended(server: "subprocess.Popen[bytes]") -> None:
        """Fast shutdown, and harder means only where it does not come to an end."""
        for number, patience in ((signal.SIGINT, 60.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 10.0)):
            if server.poll() is not None:
                break
            server.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(patience)
        _say(f"the server has ended with status {server.returncode}")

    # ------------------------------------------------------------------------------------------- bringing it up

    @contextlib.contextmanager
    def _only_writer(self) -> Iterator[int]:
        """The server lock, once every process of an earlier server has gone; children inherit it."""
        descriptor = os.open(self._folder / "server.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            deadline = time.monotonic() + _ORPHAN_PATIENCE
            asked: int | None = None
            while True:
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                pid = postmaster_pid(self._folder)
                if pid is not None and pid != asked and _serves(pid, self._data):
                    _say(f"waiting for an earlier server (process {pid}) to shut down")
                    with contextlib.suppress(OSError):
                        os.kill(pid, signal.SIGINT)
                    asked = pid
                if self._told_to_stop or time.monotonic() > deadline:
                    raise SupervisionFailed(f"an earlier server in {self._folder} has not ended (process {pid})")
                time.sleep(POLL)
            self._forget_stale_pid()
            yield descriptor
        finally:
            os.close(descriptor)

    def _forget_stale_pid(self) -> None:
        """Remove the lock files that a killed server left.

        With the server lock in hand no server of ours runs. PostgreSQL itself would refuse to start beside any
        process of the same number and account, and in a container the numbers repeat at every start. (It still
        refuses where the cluster's shared memory is in use.)
        """
        pid = postmaster_pid(self._folder)
        if pid is not None and _serves(pid, self._data):
            raise SupervisionFailed(f"a PostgreSQL that facepass did not start (process {pid}) uses {self._data}")
        for stale in (self._data / "postmaster.pid", self._sockets / f".s.PGSQL.{PORT}.lock"):
            stale.unlink(missing_ok=True)

    def _prepare(self, writer: int) -> None:
        """Have a complete cluster with a known password and today's settings."""
        version = self._data / "PG_VERSION"
        if version.exists():
            if (found := version.read_text(encoding="utf-8").strip()) != MAJOR:
                raise SupervisionFailed(f"{self._data} was made by PostgreSQL {found}, and these binaries are {MAJOR}")
            self._keep_password(writer)
            self._keep_extension(writer)
        else:
            self._create(writer)
        _replaced(self._data / "pg_hba.conf", _HBA)
        _replaced(self._data / "facepass.conf", _SETTINGS)
        own = self._folder / "postgresql.local.conf"
        if not own.exists():
            own.write_text("# Your own settings, read at each start; of one name the last counts.\n", encoding="utf-8")

    def _create(self, writer: int) -> None:
        """Make the cluster beside its place and move it there when it is whole and on the disk."""
        _say("making the cluster")
        fresh = self._folder / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        initdb = [str(self._install / "bin" / "initdb"), "-D", str(fresh)]
        self._run(
            [
                *initdb, "--username=postgres", "--auth=reject", "--encoding=UTF8", "--locale=C",
                "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--data-checksums", "--no-sync",
                "--no-instructions",
            ],
            writer,
        )  # fmt: skip
        password = os.urandom(32).hex()
        unsynced = ("-F",)  # everything is synced below, before the cluster counts
        self._sql(
            fresh,
            "template1",
            [
                "CREATE EXTENSION vector",  # in the template, so that every database has it
                f"CREATE ROLE {ROLE} LOGIN CREATEDB PASSWORD '{password}'",
                f"CREATE DATABASE {DATABASE} OWNER {ROLE}",
                f"REVOKE ALL ON DATABASE {DATABASE} FROM PUBLIC",
            ],
            writer,
            unsynced,
        )
        with (fresh / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write(_INCLUDES)
        (fresh / "facepass.conf").write_text(_SETTINGS, encoding="utf-8")
        self._run([*initdb, "--sync-only"], writer)
        _replaced(self._folder / "vector.version", self._vector_version())
        _replaced(self._folder / "password", password)
        shutil.rmtree(self._data, ignore_errors=True)  # it had no PG_VERSION: an empty or half deleted folder
        fresh.rename(self._data)
        _synced(self._folder)

    def _keep_password(self, writer: int) -> None:
        """Give the role a new password where the file with it was lost; the file comes last."""
        if not (self._folder / "password").exists():
            _say("the password file is missing: setting a new password")
            password = os.urandom(32).hex()
            self._sql(self._data, "postgres", [f"ALTER ROLE {ROLE} PASSWORD '{password}'"], writer)
            _replaced(self._folder / "password", password)

    def _keep_extension(self, writer: int) -> None:
        """Let pgvector follow the binaries: only a superuser may update it, and none can connect."""
        noted = self._folder / "vector.version"
        current = self._vector_version()
        with contextlib.suppress(OSError):
            if noted.read_text(encoding="utf-8") == current:
                return
        try:
            for database in ("template1", DATABASE):
                self._sql(self._data, database, ["ALTER EXTENSION vector UPDATE"], writer)
        except SupervisionFailed as error:
            _say(f"pgvector stays as it is: {error}")
            return
        _replaced(noted, current)

    def _vector_version(self) -> str:
        control = self._install / "share" / "postgresql" / "extension" / "vector.control"
        return next(
            (line for line in control.read_text(encoding="utf-8").splitlines() if line.startswith("default_version")),
            "",
        )

    def _sql(
        self, data: Path, database: str, statements: Sequence[str], writer: int, options: Sequence[str] = ()
    ) -> None:
        """Run statements as the superuser in single-user mode, where no connection and no password is involved."""
        self._run(
            [
                str(self._install / "bin" / "postgres"), "--single", "-j", "-D", str(data), *options,
                "-c", "exit_on_error=true",
                "-c", "log_statement=none", "-c", "log_min_duration_statement=-1",
                "-c", "log_min_error_statement=panic",  # a statement may hold the password
                database,
            ],
            writer,
            "".join(f"{statement};\n\n" for statement in statements),
        )  # fmt: skip

    @staticmethod
    def _run(command: Sequence[str], writer: int, text: str = "") -> None:
        done = subprocess.run(  # noqa: S603 - the package's own binaries, with arguments from here
            command,
            input=text.encode(),
            stdout=subprocess.DEVNULL,
            check=False,
            env=ENVIRONMENT,
            pass_fds=(writer,),
            preexec_fn=_ending_with_me(signal.SIGTERM),
        )
        if done.returncode != 0:
            raise SupervisionFailed(f"{Path(command[0]).name} ended with status {done.returncode}")

    def _launched(self, writer: int) -> "subprocess.Popen[bytes]":
        """A postmaster of this process, which shuts down fast should this process be killed."""
        listed = '"' + str(self._sockets).replace('"', '""') + '"'
        fixed = {
            "listen_addresses": "",
            "port": str(PORT),
            "unix_socket_directories": listed,
            "unix_socket_permissions": "0700",
            "fsync": "on",
            "full_page_writes": "on",
        }
        return subprocess.Popen(  # noqa: S603 - the package's own binary, with arguments from here
            [
                str(self._install / "bin" / "postgres"), "-D", str(self._data),
                *(word for name, value in fixed.items() for word in ("-c", f"{name}={value}")),
            ],
            stdin=subprocess.DEVNULL,
            env=ENVIRONMENT,
            pass_fds=(writer,),
            preexec_fn=_ending_with_me(signal.SIGINT),  # noqa: PLW1509 - this process has one thread
        )  # fmt: skip


def main() -> NoReturn:
    """Detach, become the account, and supervise; the first output is the answer to the waiting owner."""
    orders = Orders(**json.loads(sys.argv[1]))
    if os.fork() != 0:
        os._exit(0)  # so that the supervisor is nobody's child to reap
    os.setsid()
    if orders.uid is not None and orders.gid is not None:
        os.setgroups([orders.gid])
        os.setgid(orders.gid)
        os.setuid(orders.uid)
    os.umask(0o077)
    folder = Path(orders.folder)
    os.chdir(folder)
    log = folder / "supervisor.log"
    with contextlib.suppress(OSError):
        if log.stat().st_size > _LOG_LIMIT:
            log.rename(log.with_name("supervisor.log.1"))
    target = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    report = os.dup(1)
    for standard in (1, 2):
        os.dup2(target, standard)
    os.close(target)
    Supervisor(orders, report).run()
    sys.exit(0)


if __name__ == "__main__":
    main()
