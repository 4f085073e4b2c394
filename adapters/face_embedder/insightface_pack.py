"""InsightFace's packs: where one lies, and on whose terms."""

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from insightface.model_zoo.model_license import inspect_model_package_license
from insightface.utils.storage import download

from domain.errors import PackMissing, PackUnavailable, UnknownPack

_log = logging.getLogger(__name__)

DEFAULT_ROOT: Final = Path("~/.insightface")
"""Where the library itself looks."""
_ITS_OWN: Final = frozenset(
    {"antelopev2", "buffalo_l", "buffalo_m", "buffalo_s", "buffalo_sc", "raccoon_l", "raccoon_s"}
)
"""What the library downloads for `FaceAnalysis` by name (`insightface.gui.core.model_packages`, version 2.1)."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_RESEARCH_ONLY: Final = (
    "InsightFace's pretrained models are for non-commercial research only, however they were obtained "
    "(github.com/deepinsight/insightface, README, License)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class InsightFacePack:
    """A folder of model files that InsightFace's `FaceAnalysis` loads."""

    name: str
    folder: Path
    licence: str
    """A sentence for whoever runs the service."""
    commercial: bool
    """Whether commercial use is known to be allowed. What is unknown is not."""

    def files(self) -> tuple[Path, ...]:
        """Return the model files, by name. Raises `PackMissing` where there are none."""
        found = tuple(sorted(self.folder.glob("*.onnx")))
        if not found and not (self.folder / "manifest.json").is_file():
            raise PackMissing(
                f"there are no InsightFace models in {self.folder}: put the pack's .onnx files there, or ask for the "
                f"download, on these terms: {self.licence}"
            )
        return found


def insightface_pack(name: str, root: Path = DEFAULT_ROOT) -> InsightFacePack:
    """Tell where a pack lies and on whose terms, whether its files are there or not.

    A `MODEL.LICENSE` in the folder, which InsightFace signs for its customers, is checked by the library itself (this
    takes the package `rfc8785`).

    Args:
        name: of the folder; one of InsightFace's own names, or any other.
        root: the folder that holds `models/<name>`.

    Raises:
        UnknownPack: this cannot be a pack's name.
    """
    if not _NAME.fullmatch(name):
        raise UnknownPack(
            f"an InsightFace pack has the name of its folder: letters, digits, '.', '_', '-'; not {name!r}"
        )
    folder = root.expanduser() / "models" / name
    found = inspect_model_package_license(folder, expected_model_id=name)
    if not found.defaulted:
        licence = found.message
    elif name in _ITS_OWN:
        licence = _RESEARCH_ONLY
    else:
        licence = f"unknown: {folder} holds no MODEL.LICENSE and is none of InsightFace's own packs"
    return InsightFacePack(name=name, folder=folder, licence=licence, commercial=found.commercial_use_permitted)


def download_pack(pack: InsightFacePack) -> None:
    """Let the library download a pack that is not there, and log its licence first. Blocks, for minutes.

    The library checks no hash: what it brings is what the embedding space's digest is taken of from then on.

    Raises:
        PackUnavailable: it cannot be downloaded.
        PackMissing: what was downloaded holds no models.
    """
    if any(pack.folder.glob("*.onnx")):
        return
    _log.warning("downloading %s to %s. %s", pack.name, pack.folder, pack.licence)
    try:
        download("models", pack.name, force=True, root=str(pack.folder.parents[1]))
    except Exception as error:  # requests, urllib3, zipfile and the library's own share no base but Exception
        raise PackUnavailable(f"InsightFace cannot download {pack.name}: {type(error).__name__}") from error
    pack.files()
