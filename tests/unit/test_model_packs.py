import base64
import hashlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from adapters.packs import registry
from adapters.packs.convert_centerface import convert_centerface
from adapters.packs.convert_dlib_resnet import convert_dlib_resnet
from adapters.packs.fetch import Fetcher
from adapters.packs.indexes import IndexSettings, index_settings
from adapters.packs.manifest import read_manifest
from adapters.packs.registry import PackRegistry
from domain.errors import PackCorrupt, PackMissing, PackNotCommercial, PackUnavailable, UnknownPack
from domain.model_pack import EmbedderPart, ModelPack, PackState

ROOT = Path(__file__).parents[2]
BUILT_IN = sorted(Path(registry.__file__).parent.glob("*.toml"))
NO_FILES = {"PIP_CONFIG_FILE": "/dev/null", "UV_NO_CONFIG": "1"}
CONTENT = bytes(range(256)) * 4096


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def silent(stage: str, done: int, total: int | None) -> None:
    pass


@dataclass
class Site:
    """A web server on this machine that can break off, stall, and counts what it was asked."""

    url: str
    pages: dict[str, bytes] = field(default_factory=dict)
    breaks: dict[str, int] = field(default_factory=dict)
    """How many more times a path ends in the middle."""
    stalls: set[str] = field(default_factory=set)
    answers: dict[str, list[int]] = field(default_factory=dict)
    """HTTP codes to give before the page."""
    asked: list[str] = field(default_factory=list)
    credentials: set[str | None] = field(default_factory=set)
    stalled: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def site() -> Iterator[Site]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            there.asked.append(self.path)
            there.credentials.add(self.headers["Authorization"])
            if codes := there.answers.get(self.path):
                self.send_error(codes.pop(0))
                return
            if (body := there.pages.get(self.path)) is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/html" if self.path.endswith("/") else "application/octet-stream")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            if there.breaks.get(self.path, 0) > 0:
                there.breaks[self.path] -= 1
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            if self.path in there.stalls:
                there.stalled.set()
                there.released.wait(30)
            self.wfile.write(body[len(body) // 2 :])

        def log_message(self, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *args: object) -> None:
            pass  # a client that was killed is part of the tests

    server = Server(("127.0.0.1", 0), Handler)
    there = Site(url=f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield there
    there.released.set()
    server.shutdown()
    server.server_close()
    thread.join()


def toy(source: str, *, name: str = "toy", commercial: bool = True, file: str = "toy.onnx") -> str:
    return f"""
format = 1
name = "{name}"
version = 1
summary = "A pack for tests."
training_data = "Trained on nothing."

[detector]
decoder = "scrfd"
file = "{file}"
licence = "MIT"
commercial = {str(commercial).lower()}
licence_note = "Made up."
multiple = 32
confidence = 0.5
nms_iou = 0.4
source = {source}
pixels = {{ layout = "float32_nchw", colour = "rgb" }}
"""


def by_url(site: Site, digest: str | None) -> str:
    pinned = f', sha256 = "{digest}"' if digest else ""
    return f'{{ kind = "url", url = "{site.url}/toy.onnx"{pinned} }}'


def keep(cache: Path, text: str, file: str = "toy.toml") -> None:
    (cache / "packs").mkdir(parents=True, exist_ok=True)
    (cache / "packs" / file).write_text(text)


def packs(
    cache: Path, *, commercial_only: bool = False, environment: Mapping[str, str] = NO_FILES, attempts: int = 2
) -> PackRegistry:
    fetcher = Fetcher(environment, attempts=attempts, pause=0.01)
    return PackRegistry(cache, commercial_only=commercial_only, fetcher=fetcher)


def remains(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir()} - {"packs", ".lock"}


# What packs are


@pytest.mark.parametrize("path", BUILT_IN, ids=lambda path: path.stem)
def test_every_built_in_manifest_says_its_terms(path: Path) -> None:
    pack = read_manifest(path)
    assert pack.name == path.stem
    assert pack.summary
    assert "photographs" in pack.training_data
    for part in pack.parts:
        assert part.weights.licence
        assert part.weights.licence_note
        assert part.weights.source_sha256
        assert part.weights.file.endswith(".onnx")
    assert pack.commercial == all(part.weights.commercial for part in pack.parts)


def test_the_built_in_packs_are_these() -> None:
    terms = {pack.name: pack.commercial for pack in map(read_manifest, BUILT_IN)}
    assert terms == {"buffalo_l": False, "buffalo_s": False, "minifasnet": True, "open": True, "sface": True}


@pytest.mark.parametrize("path", BUILT_IN, ids=lambda path: path.stem)
def test_every_converter_that_a_manifest_asks_for_exists(path: Path) -> None:
    asked = {part.weights.converter for part in read_manifest(path).parts} - {None}
    assert asked <= set(registry.CONVERTERS)


def open_pack() -> ModelPack:
    return read_manifest(Path(registry.__file__).parent / "open.toml")


def with_embedder(pack: ModelPack, **changes: object) -> ModelPack:
    return replace(
        pack,
        parts=tuple(
            replace(part, **changes) if isinstance(part, EmbedderPart) else part  # type: ignore[arg-type]  # the tests' own fields
            for part in pack.parts
        ),
    )


def test_another_crop_is_another_space() -> None:
    pack = open_pack()
    moved = with_embedder(pack, template=((46.4, 47.6), (103.5, 45.8), (73.4, 80.2), (50.4, 105.9), (99.2, 105.0)))
    assert pack.space is not None
    assert moved.space is not None
    assert pack.space.model == moved.space.model
    assert pack.space.digest != moved.space.digest


def test_without_the_mirror_it_is_another_space() -> None:
    assert open_pack().space != with_embedder(open_pack(), mirror=False).space


def test_a_detection_threshold_moves_no_vector() -> None:
    pack = open_pack()
    assert pack.detector is not None
    stricter = replace(pack, parts=(replace(pack.detector, confidence=0.9), *pack.parts[1:]))
    assert stricter.space == pack.space


def test_a_pack_without_embedder_has_no_space() -> None:
    assert read_manifest(Path(registry.__file__).parent / "minifasnet.toml").space is None


def test_the_calibration_table_comes_through_untouched(tmp_path: Path) -> None:
    keep(tmp_path, toy('{ kind = "url", url = "https://example.org/x" }') + "\n[calibration]\ncurve = [[0.1, 0.9]]\n")
    assert packs(tmp_path).get("toy").calibration == {"curve": [[0.1, 0.9]]}


def test_a_typo_in_a_manifest_is_named_with_its_file(tmp_path: Path) -> None:
    keep(tmp_path, toy('{ kind = "url", url = "https://example.org/x" }').replace("nms_iou", "nms_uoi"))
    with pytest.raises(PackCorrupt, match=r"toy\.toml.*nms_"):
        packs(tmp_path).listed()


def test_a_file_name_cannot_leave_the_pack(tmp_path: Path) -> None:
    keep(tmp_path, toy('{ kind = "url", url = "https://example.org/x" }', file="../toy.onnx"))
    with pytest.raises(PackCorrupt, match="file"):
        packs(tmp_path).listed()


def test_two_packs_of_one_name_name_both_files(tmp_path: Path) -> None:
    keep(tmp_path, toy('{ kind = "url", url = "https://example.org/x" }', name="open"))
    with pytest.raises(PackCorrupt, match=r"adapters/packs/open\.toml and .*packs/toy\.toml"):
        packs(tmp_path).get("open")


def test_an_unknown_pack_is_told_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UnknownPack, match=r"opne.*open@1"):
        packs(tmp_path).get("opne")


def test_another_version_is_unknown(tmp_path: Path) -> None:
    assert packs(tmp_path).get("open@1").name == "open"
    with pytest.raises(UnknownPack):
        packs(tmp_path).get("open@2")


# Pulling


def test_a_pull_keeps_the_file_and_says_how_far_it_is(tmp_path: Path, site: Site) -> None:
    site.pages["/toy.onnx"] = CONTENT
    keep(tmp_path, toy(by_url(site, sha256(CONTENT))))
    told: list[tuple[str, int, int | None]] = []

    def progress(stage: str, done: int, total: int | None) -> None:
        told.append((stage, done, total))

    status = packs(tmp_path).pull("toy", progress)
    assert (status.state, status.warnings) == (PackState.READY, ())
    assert packs(tmp_path).files("toy")["detector"].read_bytes() == CONTENT
    assert told[0] == ("downloading toy.onnx", 0, len(CONTENT))
    assert told[-1] == ("downloading toy.onnx", len(CONTENT), len(CONTENT))
    assert remains(tmp_path) == {"toy@1"}


def test_a_second_pull_asks_nobody(tmp_path: Path, site: Site) -> None:
    site.pages["/toy.onnx"] = CONTENT
    keep(tmp_path, toy(by_url(site, sha256(CONTENT))))
    packs(tmp_path).pull("toy", silent)
    packs(tmp_path).pull("toy", silent)
    assert site.asked == ["/toy.onnx"]


def test_an_interrupted_download_leaves_nothing(tmp_path: Path, site: Site) -> None:
    site.pages["/toy.onnx"] = CONTENT
    site.breaks["/toy.onnx"] = 99
    keep(tmp_path, toy(by_url(site, sha256(CONTENT))))
    with pytest.raises(PackUnavailable, match=r"after 2 attempts.*facepass models pull toy"):
        packs(tmp_path).pull("toy", silent)
    assert len(site.asked) == 2
    assert remains(tmp_path) == set()
    assert [status.state for status in packs(tmp_path).listed() if status.pack.name == "toy"] == [PackState.ABSENT]


def test_a_connection_that_breaks_once_is_tried_again(tmp_path: Path, site: Site) -> None:
    site.pages["/toy.onnx"] = CONTENT
    site.breaks["/toy.onnx"] = 1
    keep(tmp_path, toy(by_url(site, sha256(CONTENT))))
    assert packs(tmp_path).pull("toy", silent).state is PackState.READY


def test_a_busy_server_is_asked_again_but_a_missing_file_is_not(tmp_path: Path, site: Site) -> None:
    site.pages["/toy.onnx"] = CONTENT
    site.answers["/toy.onnx"] = [503, 404]
    keep(tmp_path, toy(by_url(site, sha256(CONTENT))))
    with pytest.raises(PackUnavailable, match="HTTP 404"):
        packs(tmp_path, attempts=5).pull("toy", silent)
    assert len(site.asked) == 2


def test_a_server_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        port = taken.getsockname()[1]
        keep(tmp_path, toy(f'{{ kind = "url", url = "http://127.0.0.1:{port}/toy.onnx" }}'))
        with pytest.raises(PackUnavailable, match="facepass models pull toy"):
            packs(tmp_path).pull("toy", silent)


def test_a_corrupt_download_names_both_hashes_and_leaves_nothing(tmp_path: Path, site: Site) -> None:
    site.pages["/toy.onnx"] = b"something else"
    keep(tmp_path, toy(by_url(site, sha256(CONTENT))))
    with pytest.raises(PackCorrupt, match=f"{sha256(CONTENT)}.*{sha256(b'something else')}.*facepass models pull"):
        packs(tmp_path).pull("toy", silent)
    assert remains(tmp_path) == set()


def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path, site: Site) -> None:
    site.pages["/toy.onnx"] = CONTENT
    keep(tmp_path, toy(by_url(site, sha256(CONTENT))))
    (tmp_path / ".lock").mkdir()
    with pytest.raises(PackUnavailable, match="could not be kept"):
        packs(tmp_path).pull("toy", silent)


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/"), content)
    return buffer.getvalue()


def tarred(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def in_archive(site: Site, digest: str | None, member: str = "toy") -> str:
    pinned = f', member_sha256 = "{digest}"' if digest else ""
    return f'{{ kind = "archive", url = "{site.url}/toy.zip", member = "{member}"{pinned} }}'


@pytest.mark.parametrize("pack", [zipped(other=b"1", toy=CONTENT), tarred("top-1.0/toy", CONTENT)], ids=["zip", "tar"])
def test_one_file_is_taken_out_of_an_archive(tmp_path: Path, site: Site, pack: bytes) -> None:
    site.pages["/toy.zip"] = pack
    keep(tmp_path, toy(in_archive(site, sha256(CONTENT))))
    packs(tmp_path).pull("toy", silent)
    assert packs(tmp_path).files("toy")["detector"].read_bytes() == CONTENT
    assert {path.name for path in (tmp_path / "toy@1").iterdir()} == {"toy.onnx", "manifest.json"}


def test_a_wrong_member_is_refused(tmp_path: Path, site: Site) -> None:
    site.pages["/toy.zip"] = zipped(toy=b"another")
    keep(tmp_path, toy(in_archive(site, sha256(CONTENT))))
    with pytest.raises(PackCorrupt, match=f"toy in toy.zip.*{sha256(CONTENT)}.*{sha256(b'another')}"):
        packs(tmp_path).pull("toy", silent)
    assert remains(tmp_path) == set()


def test_a_missing_member_is_told(tmp_path: Path, site: Site) -> None:
    site.pages["/toy.zip"] = zipped(other=b"1")
    keep(tmp_path, toy(in_archive(site, sha256(CONTENT))))
    with pytest.raises(PackCorrupt, match=r"toy\.zip does not hold toy"):
        packs(tmp_path).pull("toy", silent)


def test_what_is_no_archive_is_told(tmp_path: Path, site: Site) -> None:
    site.pages["/toy.zip"] = b"<html>please log in</html>"
    keep(tmp_path, toy(in_archive(site, sha256(CONTENT))))
    with pytest.raises(PackCorrupt, match=r"could not be read from toy\.zip"):
        packs(tmp_path).pull("toy", silent)


PULL = """
import sys
from pathlib import Path
from adapters.packs.convert_centerface import convert_centerface
from adapters.packs.convert_dlib_resnet import convert_dlib_resnet
from adapters.packs.fetch import Fetcher
from adapters.packs.registry import PackRegistry
packs = PackRegistry(Path(sys.argv[1]), commercial_only=False, fetcher=Fetcher({}, pause=0.01))
print(packs.pull("toy", lambda stage, done, total: print(stage, flush=True)).state, flush=True)
"""


def pulling(cache: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", PULL, cache], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_two_pulls_at_once_do_the_work_once(tmp_path: Path, site: Site) -> None:
    site.pages["/toy.onnx"] = CONTENT
    site.stalls.add("/toy.onnx")
    keep(tmp_path, toy(by_url(site, sha256(CONTENT))))
    with pulling(tmp_path) as first:
        assert site.stalled.wait(20)
        with pulling(tmp_path) as second:
            assert second.stdout is not None
            assert second.stdout.readline() == "waiting for another pull\n"
            site.released.set()
            assert (second.communicate(timeout=20)[0], second.returncode) == ("ready\n", 0)
        assert first.wait(20) == 0
    assert site.asked == ["/toy.onnx"]


def test_a_killed_pull_is_cleaned_up_by_the_next(tmp_path: Path, site: Site) -> None:
    site.pages["/toy.onnx"] = CONTENT
    site.stalls.add("/toy.onnx")
    keep(tmp_path, toy(by_url(site, sha256(CONTENT))))
    with pulling(tmp_path) as killed:
        assert site.stalled.wait(20)
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
    site.released.set()
    assert [name for name in remains(tmp_path) if name.startswith(".building-")]
    with pytest.raises(PackMissing):
        packs(tmp_path).files("toy")
    packs(tmp_path).pull("toy", silent)
    assert remains(tmp_path) == {"toy@1"}


# Loading


@pytest.fixture
def kept(tmp_path: Path, site: Site) -> Path:
    site.pages["/toy.onnx"] = CONTENT
    keep(tmp_path, toy(by_url(site, sha256(CONTENT))))
    packs(tmp_path).pull("toy", silent)
    return tmp_path


def test_what_was_not_pulled_is_missing(tmp_path: Path) -> None:
    for ask in (packs(tmp_path).files, packs(tmp_path).verify):
        with pytest.raises(PackMissing, match="facepass models pull open"):
            ask("open")


def flip(cache: Path) -> None:
    (cache / "toy@1" / "toy.onnx").write_bytes(b"\x01" + CONTENT[1:])


def shorten(cache: Path) -> None:
    (cache / "toy@1" / "toy.onnx").write_bytes(CONTENT[:-1])


def delete(cache: Path) -> None:
    (cache / "toy@1" / "toy.onnx").unlink()


def forget(cache: Path) -> None:
    (cache / "toy@1" / "manifest.json").unlink()


def forge(cache: Path) -> None:
    flip(cache)
    record = cache / "toy@1" / "manifest.json"
    told = json.loads(record.read_text())
    told["files"]["detector"]["sha256"] = sha256(b"\x01" + CONTENT[1:])
    record.write_text(json.dumps(told))


@pytest.mark.parametrize("harm", [flip, shorten, delete, forget, forge])
def test_a_harmed_pack_is_noticed_at_load_and_made_anew_by_a_pull(kept: Path, harm: Callable[[Path], None]) -> None:
    harm(kept)
    assert not packs(kept).verify("toy").intact
    with pytest.raises(PackCorrupt, match="facepass models pull toy"):
        packs(kept).files("toy")
    packs(kept).pull("toy", silent)
    assert packs(kept).verify("toy").intact
    assert packs(kept).files("toy")["detector"].read_bytes() == CONTENT
    assert remains(kept) == {"toy@1"}


def test_verify_tells_each_file_with_both_hashes(kept: Path) -> None:
    flip(kept)
    (report,) = packs(kept).verify("toy").files
    assert (report.part, report.file, report.intact) == ("detector", "toy.onnx", False)
    assert (report.expected, report.found) == (sha256(CONTENT), sha256(b"\x01" + CONTENT[1:]))


def test_a_manifest_that_changed_since_the_pull_is_noticed(kept: Path, site: Site) -> None:
    keep(kept, toy(by_url(site, sha256(b"newer"))))
    with pytest.raises(PackCorrupt, match="built from another manifest"):
        packs(kept).files("toy")


# Terms


def test_a_research_pack_is_pulled_where_nobody_forbids_it(tmp_path: Path, site: Site) -> None:
    site.pages["/toy.onnx"] = CONTENT
    keep(tmp_path, toy(by_url(site, sha256(CONTENT)), commercial=False))
    assert packs(tmp_path).pull("toy", silent).state is PackState.READY


def test_a_research_pack_is_neither_pulled_nor_loaded_where_only_commercial_ones_may_be(
    tmp_path: Path, site: Site
) -> None:
    site.pages["/toy.onnx"] = CONTENT
    keep(tmp_path, toy(by_url(site, sha256(CONTENT)), commercial=False))
    with pytest.raises(PackNotCommercial, match=r"detector MIT.*FACEPASS_MODELS__COMMERCIAL_ONLY"):
        packs(tmp_path, commercial_only=True).pull("toy", silent)
    assert site.asked == []
    packs(tmp_path).pull("toy", silent)
    with pytest.raises(PackNotCommercial):
        packs(tmp_path, commercial_only=True).files("toy")


# Trust on first use


def test_a_file_without_a_hash_is_pinned_with_a_warning(
    tmp_path: Path, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.pages["/toy.onnx"] = CONTENT
    keep(tmp_path, toy(by_url(site, None)))
    assert packs(tmp_path).get("toy").parts[0].weights.source_sha256 is None
    (warning,) = packs(tmp_path).pull("toy", silent).warnings
    assert "toy.onnx" in warning
    assert sha256(CONTENT) in warning
    assert warning in caplog.messages
    assert packs(tmp_path).get("toy").parts[0].weights.source_sha256 == sha256(CONTENT)
    assert next(status for status in packs(tmp_path).listed() if status.pack.name == "toy").warnings == (warning,)


def test_what_was_pinned_is_not_trusted_twice(tmp_path: Path, site: Site) -> None:
    site.pages["/toy.onnx"] = CONTENT
    keep(tmp_path, toy(by_url(site, None)))
    packs(tmp_path).pull("toy", silent)
    flip(tmp_path)
    site.pages["/toy.onnx"] = b"exchanged"
    with pytest.raises(PackCorrupt, match=f"pinned SHA-256 {sha256(CONTENT)}, came {sha256(b'exchanged')}"):
        packs(tmp_path).pull("toy", silent)


# Packages


WHEEL = "toypack-1.0-py3-none-any.whl"


def in_package(archive: bytes, member: bytes = CONTENT) -> str:
    return (
        f'{{ kind = "registry", package = "toypack", version = "1.0", archive = "{WHEEL}", '
        f'archive_sha256 = "{sha256(archive)}", member = "toypack/toy.bin", member_sha256 = "{sha256(member)}" }}'
    )


def test_a_file_comes_out_of_a_wheel_through_pips_settings_past_indexes_that_are_not_there(
    tmp_path: Path, site: Site
) -> None:
    wheel = zipped(toypack__toy=b"decoy", **{"toypack__toy.bin": CONTENT})
    site.pages["/simple/toypack/"] = f'<a href="/files/{WHEEL}#sha256={sha256(wheel)}">{WHEEL}</a>'.encode()
    site.pages[f"/files/{WHEEL}"] = wheel
    settings = tmp_path / "pip.conf"
    settings.write_text(
        "[global]\nfind-links = /not/there\nextra-index-url = file:///nor/there/simple\n\n"
        f"    file:///nor/here\n[install]\nindex-url = {site.url}/simple\n"
    )
    keep(tmp_path / "models", toy(in_package(wheel)))
    there = packs(tmp_path / "models", environment={"PIP_CONFIG_FILE": str(settings), "UV_NO_CONFIG": "1"})
    there.pull("toy", silent)
    assert there.files("toy")["detector"].read_bytes() == CONTENT


def test_an_index_page_that_breaks_off_once_is_asked_for_again(tmp_path: Path, site: Site) -> None:
    wheel = zipped(**{"toypack__toy.bin": CONTENT})
    site.pages["/simple/toypack/"] = f'<a href="/{WHEEL}#sha256={sha256(wheel)}">{WHEEL}</a>'.encode()
    site.pages[f"/{WHEEL}"] = wheel
    site.breaks["/simple/toypack/"] = 1
    keep(tmp_path, toy(in_package(wheel)))
    there = packs(tmp_path, environment=NO_FILES | {"PIP_INDEX_URL": f"{site.url}/simple", "HOME": str(tmp_path)})
    assert there.pull("toy", silent).state is PackState.READY
    assert site.asked.count("/simple/toypack/") == 2


def test_a_folder_of_packages_is_enough_where_no_index_may_be_asked(tmp_path: Path) -> None:
    wheel = zipped(**{"toypack__toy.bin": CONTENT})
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / WHEEL).write_bytes(wheel)
    keep(tmp_path / "models", toy(in_package(wheel)))
    environment = NO_FILES | {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "wheels")}
    there = packs(tmp_path / "models", environment=environment)
    assert there.pull("toy", silent).state is PackState.READY


def test_another_file_of_the_same_name_is_passed_over(tmp_path: Path, site: Site) -> None:
    wheel, other = zipped(**{"toypack__toy.bin": CONTENT}), zipped(other=b"1")
    for index, content in (("wrong", other), ("right", wheel)):
        site.pages[f"/{index}/toypack/"] = f'<a href="{WHEEL}#sha256={sha256(content)}">{WHEEL}</a>'.encode()
        site.pages[f"/{index}/toypack/{WHEEL}"] = content
    keep(tmp_path, toy(in_package(wheel)))
    environment = NO_FILES | {"UV_DEFAULT_INDEX": f"{site.url}/wrong"}
    with pytest.raises(PackCorrupt, match=f"offers another {WHEEL}.*{sha256(wheel)}.*{sha256(other)}"):
        packs(tmp_path, environment=environment).pull("toy", silent)
    there = packs(tmp_path, environment=environment | {"UV_EXTRA_INDEX_URL": f"{site.url}/right"})
    assert there.pull("toy", silent).state is PackState.READY
    assert f"/wrong/toypack/{WHEEL}" not in site.asked


def test_a_package_that_nobody_has_is_unavailable(tmp_path: Path, site: Site) -> None:
    keep(tmp_path, toy(in_package(b"nowhere")))
    environment = NO_FILES | {"PIP_INDEX_URL": f"{site.url}/simple"}
    with pytest.raises(PackUnavailable, match=r"toypack 1\.0.*index settings of pip and uv.*models pull toy"):
        packs(tmp_path, environment=environment).pull("toy", silent)


def test_a_password_in_an_index_address_is_sent_but_never_told(tmp_path: Path, site: Site) -> None:
    wheel = zipped(**{"toypack__toy.bin": CONTENT})
    site.pages["/simple/toypack/"] = f'<a href="/{WHEEL}#sha256={sha256(wheel)}">{WHEEL}</a>'.encode()
    site.pages[f"/{WHEEL}"] = wheel
    site.breaks[f"/{WHEEL}"] = 99
    keep(tmp_path, toy(in_package(wheel)))
    secret = site.url.replace("http://", "http://me:hush-hush@")
    environment = NO_FILES | {"PIP_INDEX_URL": f"{secret}/simple"}
    with pytest.raises(PackUnavailable) as caught:
        packs(tmp_path, environment=environment).pull("toy", silent)
    assert site.credentials == {"Basic " + base64.b64encode(b"me:hush-hush").decode()}
    assert WHEEL in caught.value.message
    assert "hush-hush" not in caught.value.message
    assert "hush-hush" not in repr(index_settings(environment))


# Converting


@pytest.mark.parametrize("convert", [convert_centerface, convert_dlib_resnet])
@pytest.mark.parametrize("source", [b"", b"nonsense", bytes(100_000)], ids=["nothing", "nonsense", "zeros"])
def test_a_converter_refuses_what_is_not_its_network(convert: Callable[[bytes], bytes], source: bytes) -> None:
    with pytest.raises(ValueError, match="not "):
        convert(source)


# Index settings


def test_the_first_word_on_the_default_index_counts_and_the_others_add_up(tmp_path: Path) -> None:
    (tmp_path / "pip.conf").write_text("[global]\nindex-url = https://pip-file\ntrusted-host = a b\ncert = /ca.pem\n")
    (tmp_path / "uv.toml").write_text('[[index]]\nurl = "https://uv-file"\n[pip]\nfind-links = ["/uv"]\n')
    environment = {
        "HOME": str(tmp_path),
        "PIP_CONFIG_FILE": str(tmp_path / "pip.conf"),
        "UV_CONFIG_FILE": str(tmp_path / "uv.toml"),
        "UV_INDEX": "corp=https://uv-index",
        "UV_INDEX_CORP_USERNAME": "me",
        "UV_INDEX_CORP_PASSWORD": "p@ss",
        "UV_EXTRA_INDEX_URL": "https://uv-extra",
        "PIP_INDEX_URL": "https://pip-variable",
        "PIP_FIND_LINKS": "/pip",
        "PIP_TRUSTED_HOST": "c",
        "PIP_DEFAULT_TIMEOUT": "7",
    }
    found = index_settings(environment)
    assert found.default_index == "https://pip-variable"
    assert found.extra_indexes == ("https://me:p%40ss@uv-index", "https://uv-extra", "https://uv-file")
    assert found.find_links == ("/pip", "/uv")
    assert found.trusted_hosts == ("c", "a", "b")
    assert found.certificates == Path("/ca.pem")
    assert found.timeout == 7.0
    explicit = index_settings(environment, IndexSettings(default_index="https://explicit", no_index=True))
    assert (explicit.default_index, explicit.no_index) == ("https://explicit", True)


def test_nothing_set_is_nothing_found() -> None:
    found = index_settings(NO_FILES)
    assert (found.default_index, found.extra_indexes, found.find_links) == (None, (), ())


def test_the_users_own_files_are_found_under_home(tmp_path: Path) -> None:
    (tmp_path / ".config" / "pip").mkdir(parents=True)
    (tmp_path / ".config" / "uv").mkdir()
    (tmp_path / ".config" / "pip" / "pip.conf").write_text("[global]\nextra-index-url = https://one\n  https://two\n")
    (tmp_path / ".config" / "uv" / "uv.toml").write_text('extra-index-url = ["https://three"]\n')
    found = index_settings({"HOME": str(tmp_path)})
    assert {"https://one", "https://two", "https://three"} <= set(found.extra_indexes)


@pytest.mark.parametrize("name", ["pip/pip.conf", "uv/uv.toml"])
def test_a_broken_settings_file_is_passed_over_with_a_warning(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / ".config" / name
    path.parent.mkdir(parents=True)
    path.write_text("]]] nonsense = [")
    index_settings({"HOME": str(tmp_path)})
    assert str(path) in caplog.text


def test_a_pull_works_where_the_home_folder_is_not_there(tmp_path: Path, site: Site) -> None:
    site.pages["/toy.onnx"] = CONTENT
    keep(tmp_path, toy(by_url(site, sha256(CONTENT))))
    environment = {"HOME": os.fspath(tmp_path / "nobody")}
    assert packs(tmp_path, environment=environment).pull("toy", silent).state is PackState.READY
