"""Where model packs come from and where they are kept."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from domain.model_pack import ModelPack, PackReport, PackStatus


class Progress(Protocol):
    """Told how far a pull has come."""

    @abstractmethod
    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """Called often, from the thread that pulls.

        Args:
            stage: what is being done, in a few words an operator can read; a new text is a new stage.
            done: so far, in bytes; 0 at a stage's start.
            total: in bytes; None where it is not known.
        """


class ModelPacks(Protocol):
    """The packs that can be had, and the cache that holds the pulled ones. Every method blocks.

    A `name` is a pack's name (`open`) or its id (`open@1`); every method that takes one raises `UnknownPack` for
    another.
    """

    @abstractmethod
    def listed(self) -> Sequence[PackStatus]:
        """Every known pack by name, ascending, each hashed anew against its record."""

    @abstractmethod
    def get(self, name: str) -> ModelPack:
        """Return the manifest; once pulled, with the hashes that only the pull could tell."""

    @abstractmethod
    def pull(self, name: str, progress: Progress) -> PackStatus:
        """Fetch, convert and keep a pack; does nothing where it is there and intact.

        Whole or not at all: what is interrupted leaves nothing to be seen. Two pulls at once, in one process or in
        several, do the work once.

        Raises:
            PackNotCommercial: a licence forbids commercial use, and commercial packs only were asked for.
            PackUnavailable: something could not be fetched or written; the message says what to do.
            PackCorrupt: what came is not what the manifest says.
        """

    @abstractmethod
    def verify(self, name: str) -> PackReport:
        """Hash every file against its record. Raises `PackMissing` where nothing is there to be hashed."""

    @abstractmethod
    def files(self, name: str) -> Mapping[str, Path]:
        """Return each part's finished file by the part's name, all of them hashed just now.

        Raises:
            PackMissing: not pulled yet.
            PackCorrupt: a file is missing or not what was recorded, or the manifest has changed since.
            PackNotCommercial: as `pull`.
        """
