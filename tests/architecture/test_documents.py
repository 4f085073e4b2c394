import re
from pathlib import Path

import pytest

from adapters.packs.fetch import Fetcher
from adapters.packs.registry import PackRegistry
from domain.errors import leaves
from domain.permission import Permission
from entrypoints.cli.main import SECTIONS
from entrypoints.http.access import PERMISSION_OPTION
from entrypoints.http.app import API
from entrypoints.http.problems import STATUS
from entrypoints.settings import setting_names

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / ".github").rglob("*.md"),
        *ROOT.glob("deploy/**/*.md"),
    ]
)
OF_THE_FRAMEWORK = {
    ("invalid_request", 400),
    ("not_found", 404),
    ("method_not_allowed", 405),
    ("request_timeout", 408),
    ("body_too_large", 413),
    ("unsupported_media_type", 415),
    ("internal_error", 500),
}
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)\s]+)\)")
CODE_ROW = re.compile(r"^\| `(\w+)` \| (\d{3}) \|", re.MULTILINE)
CALL_ROW = re.compile(r"^\| `([A-Z]+) (/\S*)` \| `(\w+)` \| (\d{3}) \|", re.MULTILINE)
FOLDER_ROW = re.compile(r"^\| `([\w./-]+/)` \|", re.MULTILINE)
COMMAND_ROW = re.compile(r"^\| `facepass ([\w-]+)` \|", re.MULTILINE)
RECIPE = re.compile(r"\bjust ([a-z]+)\b")
SETTING = re.compile(r"\bFACEPASS_[A-Z_]+[A-Z]\b")


def called(path: Path) -> str:
    return str(path.relative_to(ROOT))


def code_of(document: Path) -> str:
    """What stands in back quotes and fences."""
    text = document.read_text()
    return "\n".join([*re.findall(r"```.*?```", text, re.DOTALL), *re.findall(r"`[^`\n]+`", text)])


def anchors(document: Path) -> set[str]:
    """GitHub's anchors of a document's headings."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_error_has_a_status() -> None:
    ours = {leaf for leaf in leaves() if leaf.__module__ in {"domain.errors", "application.ports.errors"}}
    assert ours == set(STATUS)


def test_the_api_guide_has_every_error_with_its_status() -> None:
    listed = CODE_ROW.findall((ROOT / "docs" / "api.md").read_text())
    assert len(listed) == len(set(listed))
    assert {(code, int(status)) for code, status in listed} == {
        *((error.code, status) for error, status in STATUS.items()),
        *OF_THE_FRAMEWORK,
    }


def test_the_api_guide_has_every_call_with_its_scope_and_status() -> None:
    listed = CALL_ROW.findall((ROOT / "docs" / "api.md").read_text())
    there = {
        (method, re.sub(r":\w+}", "}", path), Permission(route.opt[PERMISSION_OPTION]).value, str(route.status_code))
        for route in API
        for method in route.http_methods
        for path in route.paths
    }
    assert set(listed) == there
    assert len(listed) == len(there)


def test_the_architecture_has_one_line_for_every_folder() -> None:
    packages = {
        f"{path.parent.relative_to(ROOT)}/"
        for layer in ("domain", "application", "adapters", "entrypoints", "migrations")
        for path in (ROOT / layer).rglob("*.py")
    }
    tests = {f"tests/{path.name}/" for path in (ROOT / "tests").iterdir() if any(path.glob("**/*.py"))}
    listed = FOLDER_ROW.findall((ROOT / "docs" / "architecture.md").read_text())
    assert len(listed) == len(set(listed))
    assert (packages | tests) - set(listed) == set()
    assert [folder for folder in listed if not (ROOT / folder).is_dir()] == []


def test_the_readme_names_every_built_in_pack(tmp_path: Path) -> None:
    packs = {status.pack.name for status in PackRegistry(tmp_path, commercial_only=False, fetcher=Fetcher({})).listed()}
    rows = set(re.findall(r"^\| `(\w+)` \|", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert packs <= rows


def test_the_readme_has_every_command() -> None:
    listed = COMMAND_ROW.findall((ROOT / "README.md").read_text())
    assert listed == [name for section in SECTIONS.values() for name in section]


def test_every_decision_is_listed() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = LINK.findall((folder / "README.md").read_text())
    assert {path.name for path in folder.glob("[0-9]*.md")} <= set(listed)


@pytest.mark.parametrize("document", DOCUMENTS, ids=called)
def test_every_link_leads_somewhere(document: Path) -> None:
    broken = []
    for link in LINK.findall(document.read_text()):
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=called)
def test_every_recipe_that_is_named_is_there(document: Path) -> None:
    justfile = (ROOT / "justfile").read_text()
    there = set(re.findall(r"^(?:alias )?([a-z]+)[^:\n]*:", justfile, re.MULTILINE))
    assert set(RECIPE.findall(code_of(document))) - there == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=called)
def test_every_setting_that_is_named_is_there(document: Path) -> None:
    named = {name for name in SETTING.findall(document.read_text()) if not name.startswith("FACEPASS_TEST_")}
    options = {name for name in named if "__OPTIONS__" in name}
    assert named - options - set(setting_names()) == set()
    assert {name.partition("__OPTIONS__")[0] + "__OPTIONS" for name in options} <= set(setting_names())


@pytest.mark.parametrize("document", DOCUMENTS, ids=called)
def test_every_file_that_is_named_is_there(document: Path) -> None:
    """Paths in back quotes that begin with one of our folders."""
    named = re.findall(
        r"`((?:domain|application|adapters|entrypoints|migrations|tests|deploy|docs)/[\w./-]+)`", document.read_text()
    )
    assert [path for path in named if not (ROOT / path).exists()] == []
