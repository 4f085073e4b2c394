from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
from facepass_numpy_index import NumpyFilesVectorIndex, open_index

from application.conformance.vector_index import SPACE, RawCount, VectorIndexContract, axis, entry
from application.ports.errors import PortRejected, PortUnavailable
from application.ports.vector_index import VectorIndex
from domain.enrolment import ReferenceId
from domain.gallery import GalleryId

GALLERY = GalleryId(UUID(int=1))


class TestNumpyFilesVectorIndex(VectorIndexContract):
    @pytest.fixture
    async def index(self, tmp_path: Path) -> VectorIndex:
        return NumpyFilesVectorIndex(tmp_path / "index", SPACE)

    @pytest.fixture
    async def unavailable(self, tmp_path: Path) -> VectorIndex:
        index = NumpyFilesVectorIndex(tmp_path / "unmounted", SPACE)
        (tmp_path / "unmounted").rename(tmp_path / "elsewhere")
        return index

    @pytest.fixture
    async def raw_count(self, tmp_path: Path) -> RawCount:
        async def counted(references: Sequence[ReferenceId]) -> int:
            kept = [np.load(path)["references"] for path in (tmp_path / "index").rglob("*.npz")]
            ids = {row.tobytes() for rows in kept for row in rows}
            return sum(reference.bytes in ids for reference in references)

        return counted


@pytest.mark.parametrize("options", [{}, {"folder": "index", "shards": "2"}])
async def test_a_missing_or_unknown_option_is_refused_by_name(options: dict[str, str]) -> None:
    with pytest.raises(PortRejected, match="FOLDER"):
        async with open_index(space=SPACE, options=options):
            pass


async def test_a_damaged_file_is_unavailable_and_can_be_replaced(tmp_path: Path) -> None:
    index = NumpyFilesVectorIndex(tmp_path, SPACE)
    one = entry(axis(0), GALLERY)
    await index.upsert([one])
    damage(tmp_path)
    with pytest.raises(PortUnavailable, match="damaged"):
        await index.search(one.embedding, gallery=GALLERY, people=1)
    await index.clear(GALLERY)
    await index.upsert([one])
    assert len(await index.search(one.embedding, gallery=GALLERY, people=1)) == 1


def damage(folder: Path) -> None:
    for file in folder.rglob("*.npz"):
        file.write_bytes(b"half of a file")
