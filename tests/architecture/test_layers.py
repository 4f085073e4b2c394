import ast
import importlib
import inspect
import json
import pkgutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

import application.ports

ROOT = Path(__file__).parents[2]
LAYERS = ("domain", "application", "adapters", "entrypoints")
NAMES_THAT_SAY_NOTHING = {"utils", "util", "helpers", "helper", "common", "base", "manager", "service", "misc"}
METHODS_OF_A_PORT = 5
KNOWN_TO_THE_DOMAIN = {*sys.stdlib_module_names, "numpy", "domain"}
KNOWN_TO_THE_CORE = {
    "domain": KNOWN_TO_THE_DOMAIN,
    "application": {*KNOWN_TO_THE_DOMAIN, "application"},
    "application/conformance": {*KNOWN_TO_THE_DOMAIN, "application", "pytest"},
}
"""Packages that a folder of the core may import. The contracts in pyproject.toml list what it may not, and a
framework that is new is on no such list."""

SOURCES = sorted(path for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))
PORTS = [
    importlib.import_module(module.name)
    for module in pkgutil.iter_modules(application.ports.__path__, "application.ports.")
]
PROTOCOLS = [
    member
    for module in PORTS
    for member in vars(module).values()
    if inspect.isclass(member) and member.__module__ == module.__name__ and Protocol in member.__bases__
]

IMPORT_EVERYTHING = """
import builtins, importlib, io, json, os, sys

written, read = [], []

def below_matplotlib():
    # It makes a list of the system's fonts when it is first imported, with fc-list, in a folder of its own.
    frame = sys._getframe(2)
    while frame is not None and frame.f_globals.get("__name__", "").split(".")[0] != "matplotlib":
        frame = frame.f_back
    return frame is not None

def watch(event, args):
    if event not in WATCHED or below_matplotlib():
        return
    if event == "open":
        path, mode, flags = args
        writes = any(letter in (mode or "") for letter in "wax+") or (flags or 0) & (os.O_WRONLY | os.O_RDWR)
        if writes and not str(path).endswith(".pyc") and "__pycache__" not in str(path) and str(path) != os.devnull:
            written.append(str(path))
    elif "__pycache__" not in str(args):
        written.append(f"{event} {args}")

class Watched(os._Environ):
    def __getitem__(self, name):
        frame = sys._getframe(1)
        while frame is not None and frame.f_globals.get("__name__") in {"os", "__main__", "collections.abc"}:
            frame = frame.f_back
        if frame is not None and frame.f_globals.get("__name__", "").split(".")[0] in LAYERS:
            read.append(frame.f_globals["__name__"])
        return super().__getitem__(name)

WATCHED = {"open", "socket.connect", "subprocess.Popen", "os.mkdir", "os.rename", "os.remove"}
LAYERS = {"domain", "application", "adapters", "entrypoints"}
os.environ.__class__ = Watched
sys.addaudithook(watch)
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
print(json.dumps({"written": written, "read": read}))
"""


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def public_definitions(path: Path) -> Iterator[tuple[str, ast.AST]]:
    """Modules' public classes and functions, and the public methods of those classes."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield node.name, node
            if isinstance(node, ast.ClassDef):
                for member in node.body:
                    if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef) and not member.name.startswith("_"):
                        yield f"{node.name}.{member.name}", member


def imported(path: Path) -> Iterator[str]:
    """The packages that a file imports, wherever in it; a relative import is none of them."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "").partition(".")[0]


def adapters_of_ports() -> Iterator[type]:
    for path in sorted((ROOT / "adapters").rglob("*.py")):
        module = importlib.import_module(module_name(path))
        for name, member in vars(module).items():
            if (
                inspect.isclass(member)
                and member.__module__ == module.__name__
                and not name.startswith("_")
                and any(port in member.__mro__ for port in PROTOCOLS)
            ):
                yield member


def called(port: type) -> str:
    return port.__name__


@pytest.mark.parametrize("port", PROTOCOLS, ids=called)
def test_a_port_has_at_most_five_methods(port: type) -> None:
    abstract: frozenset[str] = getattr(port, "__abstractmethods__", frozenset())
    assert 1 <= len(abstract) <= METHODS_OF_A_PORT


@pytest.mark.parametrize("port", PROTOCOLS, ids=called)
def test_every_method_of_a_port_says_what_it_promises(port: type) -> None:
    own = [member for name, member in vars(port).items() if name in getattr(port, "__abstractmethods__", ())]
    assert [member for member in own if not inspect.getdoc(member)] == []


def test_there_are_ports_and_adapters_to_look_at() -> None:
    assert len(PROTOCOLS) > 10
    assert len(list(adapters_of_ports())) > 5


def test_every_adapter_of_a_port_is_final() -> None:
    assert [adapter for adapter in adapters_of_ports() if not getattr(adapter, "__final__", False)] == []


@pytest.mark.parametrize("folder", KNOWN_TO_THE_CORE)
def test_the_core_imports_nothing_that_was_not_allowed(folder: str) -> None:
    inner = [ROOT / other for other in KNOWN_TO_THE_CORE if other.startswith(f"{folder}/")]
    files = [
        path
        for path in SOURCES
        if path.is_relative_to(ROOT / folder) and not any(path.is_relative_to(one) for one in inner)
    ]
    assert "domain" in {name for path in files for name in imported(path)}
    foreign = [
        f"{module_name(path)} imports {name}"
        for path in files
        for name in imported(path)
        if name not in KNOWN_TO_THE_CORE[folder]
    ]
    assert foreign == []


@pytest.mark.parametrize("layer", ["domain", "application"])
def test_whatever_is_public_in_the_core_says_what_it_is(layer: str) -> None:
    silent = [
        f"{module_name(path)}.{name}"
        for path in SOURCES
        if path.is_relative_to(ROOT / layer) and not path.is_relative_to(ROOT / "application" / "conformance")
        for name, node in public_definitions(path)
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not ast.get_docstring(node)
    ]
    assert silent == []


def test_no_file_has_a_name_that_says_nothing() -> None:
    assert [
        path for path in SOURCES if NAMES_THAT_SAY_NOTHING & set(path.relative_to(ROOT).with_suffix("").parts)
    ] == []


def test_importing_everything_writes_nothing_and_reads_no_environment() -> None:
    names = [module_name(path) for path in SOURCES if path.name != "__main__.py"]
    done = subprocess.run(
        [sys.executable, "-B", "-c", IMPORT_EVERYTHING, json.dumps(names)],
        cwd=ROOT,
        env={"HOME": str(Path.home()), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["written"] == []
    assert set(seen["read"]) <= {"entrypoints.settings"}


def test_every_folder_of_tests_is_run() -> None:
    chosen = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pytest"]["ini_options"]
    tests = {path.parent for path in (ROOT / "tests").rglob("test_*.py")} - {
        ROOT / "tests" / "example_adapter" / "tests"
    }
    listed = {ROOT / name for name in chosen["testpaths"]}
    assert {folder for folder in tests if not any(folder.is_relative_to(one) for one in listed)} == set()
