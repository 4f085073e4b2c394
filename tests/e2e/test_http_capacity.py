from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final
from uuid import UUID

import pytest
from dishka import Scope, decorate
from structlog.testing import capture_logs

from application.ports.errors import PortUnavailable
from application.ports.face_embedder import FaceEmbedder
from application.ports.record import Record, SealedTemplate
from domain.embedding import SpaceId
from domain.enrolment import ReferenceId
from domain.gallery import Gallery, GalleryId
from domain.person import PersonId
from domain.workspace import WorkspaceId
from entrypoints.http import capacity_watch
from entrypoints.http.capacity_watch import CapacityWatch
from tests.e2e.in_process import InProcess, StandIns, in_process, settings_for
from tests.e2e.wire import encoded

CLAIMED = 100_000


class CrowdedRecord(Record):
    """The real record, which counts more references than there are."""

    def __init__(self, record: Record) -> None:
        self._record: Final = record
        self.counts = True
        self.asked = 0

    async def gallery(self, workspace: WorkspaceId, gallery: GalleryId | str) -> Gallery:
        return await self._record.gallery(workspace, gallery)

    async def templates_of(
        self, workspace: WorkspaceId, gallery: GalleryId | str, person: PersonId | str
    ) -> tuple[Gallery, Sequence[SealedTemplate]]:
        return await self._record.templates_of(workspace, gallery, person)

    async def templates(
        self,
        workspace: WorkspaceId,
        gallery: GalleryId,
        references: Sequence[ReferenceId],
        *,
        space: SpaceId | None = None,
        consented: bool = False,
    ) -> Sequence[SealedTemplate]:
        return await self._record.templates(workspace, gallery, references, space=space, consented=consented)

    async def references_in(self, workspace: WorkspaceId, gallery: GalleryId) -> int:  # noqa: ARG002 - the port's
        self.asked += 1
        if not self.counts:
            raise PortUnavailable("database", "it cannot be reached")
        return CLAIMED

    async def all_templates(
        self,
        workspace: WorkspaceId,
        gallery: GalleryId,
        *,
        after: ReferenceId | None,
        limit: int,
        space: SpaceId | None = None,
    ) -> Sequence[SealedTemplate]:
        return await self._record.all_templates(workspace, gallery, after=after, limit=limit, space=space)


class Crowded(StandIns):
    """The stand-ins, with a record that claims a large gallery."""

    @decorate(scope=Scope.APP)
    def its_record(self, record: Record) -> Record:
        return CrowdedRecord(record)


@pytest.fixture
async def service(
    database_url: str, tmp_path: Path, open_pack_dir: Path, embedder: FaceEmbedder
) -> AsyncIterator[InProcess]:
    settings = settings_for(database_url, tmp_path, open_pack_dir)
    async with in_process(settings, Crowded(embedder), work=False) as running:
        yield running


async def record_of(service: InProcess) -> CrowdedRecord:
    record = await service.container.get(Record)
    assert isinstance(record, CrowdedRecord)
    return record


async def test_a_gallery_says_that_it_has_outgrown_its_pack(service: InProcess) -> None:
    shown = (await service.client.get("/galleries/default")).json()["capacity"]
    assert shown["references"] == CLAIMED
    assert shown["outgrown"] is True


@pytest.mark.parametrize("path", ["/search", "/search/batch", "references", "references/batch"])
async def test_work_on_a_gallery_that_outgrew_its_pack_is_warned_about_once(
    service: InProcess, astronaut: bytes, path: str
) -> None:
    image = {"image": encoded(astronaut)}
    path = path if path.startswith("/") else f"/galleries/default/{path}"
    searching = path.startswith("/search")
    item = image if searching else {"images": [image["image"]]}
    body = {"items": [item, item]} if path.endswith("batch") else item
    with capture_logs() as lines:
        for _ in range(2):
            answer = await service.client.post(path, json=body)
            assert answer.status_code in {200, 201}, answer.text
    (warning,) = [line for line in lines if line["event"] == "gallery_outgrown"]
    assert (warning["log_level"], warning["references"]) == ("warning", CLAIMED)


async def test_what_was_enrolled_is_answered_where_nobody_can_count(service: InProcess, astronaut: bytes) -> None:
    (await record_of(service)).counts = False
    with capture_logs() as lines:
        answer = await service.client.post("/galleries/default/references", files={"image": astronaut})
    assert answer.status_code == 201
    assert [line["code"] for line in lines if line["event"] == "capacity_unknown"] == ["dependency_unavailable"]


async def test_the_gallery_looked_at_longest_ago_is_forgotten_first(
    service: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capacity_watch, "MOST_GALLERIES", 2)
    record, watch = await record_of(service), await service.container.get(CapacityWatch)
    names: list[GalleryId | str] = []
    for name in ("one", "two", "three"):
        made = await service.client.post("/galleries", json={"name": name})
        names.append(GalleryId(UUID(made.json()["id"])))
    for name in [*names, names[1], names[2], names[0]]:
        await watch.look(service.workspace, name)
    assert record.asked == 4
