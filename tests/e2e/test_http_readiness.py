from pathlib import Path
from uuid import uuid4

import httpx
import msgspec
import numpy as np
import pytest
from dishka import Scope

from adapters.persistence import schema
from adapters.persistence.database import Database
from application.ports.errors import PortUnavailable
from application.ports.face_embedder import FaceEmbedder
from application.ports.vector_index import VectorIndex
from application.use_cases.keys.bootstrap import Bootstrap
from application.use_cases.upkeep.check_readiness import CheckReadiness
from domain import credential
from domain.embedding import Embedding
from domain.gallery import GalleryId
from entrypoints.http.app import make_app
from entrypoints.settings import DatabaseSettings, VectorIndexSettings
from entrypoints.wiring.startup import opened, started
from tests.e2e.in_process import LoadedEmbedder, StandIns, in_process, settings_for
from tests.e2e.wire import is_problem


async def test_a_service_whose_connections_are_all_in_use_is_busy_and_ready(
    database_url: str, tmp_path: Path, open_pack_dir: Path, embedder: FaceEmbedder
) -> None:
    settings = settings_for(database_url, tmp_path, open_pack_dir)
    small = msgspec.structs.replace(settings.database, pool_size=1, timeout=2.0)
    settings = msgspec.structs.replace(settings, database=small)
    async with in_process(settings, StandIns(embedder), work=False) as service:
        database = await service.container.get(Database)
        async with database.reads.connect(), database.transactions.connect():
            refused = await service.client.get("/galleries/default")
            is_problem(refused, 503, "busy")
            assert int(refused.headers["Retry-After"]) >= 1
            ready = await service.client.get("http://facepass/health/ready")
            assert (ready.status_code, ready.json()["checks"]["database"]) == (200, "ok")
        assert (await service.client.get("/galleries/default")).status_code == 200


async def test_a_service_over_a_database_without_a_schema_starts_and_waits_for_its_operator(
    empty_database_url: str, tmp_path: Path, open_pack_dir: Path, embedder: FaceEmbedder
) -> None:
    settings = settings_for(empty_database_url, tmp_path, open_pack_dir)
    async with opened(settings, StandIns(embedder)) as container:
        await started(container)
        assert not settings.master_key_path.exists()
        transport = httpx.ASGITransport(make_app(container, settings))
        async with httpx.AsyncClient(transport=transport, base_url="http://facepass", timeout=60.0) as client:
            ready = await client.get("/health/ready")
            assert ready.status_code == 503
            assert "schema_outdated" in ready.json()["checks"]["schema"]
            assert ready.json()["checks"]["database"] == "ok"
            headers = {"X-API-Key": "fp_whatever"}
            problem = is_problem(await client.get("/api/v1/galleries", headers=headers), 503, "dependency_unavailable")
            assert "facepass db upgrade" in problem["detail"]

            await schema.upgrade(empty_database_url)
            async with container(scope=Scope.REQUEST) as unit:
                made = await (await unit.get(Bootstrap))(new_key=True, scopes=frozenset(credential.Scope))
            assert settings.master_key_path.exists()
            assert made.secret is not None
            answer = await client.get("/api/v1/galleries", headers={"X-API-Key": made.secret})
            assert answer.status_code == 200


async def test_a_command_over_a_database_without_a_schema_is_told_what_to_run(
    empty_database_url: str, tmp_path: Path, open_pack_dir: Path, embedder: FaceEmbedder
) -> None:
    settings = settings_for(empty_database_url, tmp_path, open_pack_dir)
    async with opened(settings, StandIns(embedder)) as container, container(scope=Scope.REQUEST) as unit:
        with pytest.raises(PortUnavailable, match=r"schema_outdated.*facepass db upgrade"):
            await unit.get(Bootstrap)


@pytest.mark.parametrize("apart", [False, True])
async def test_searches_and_single_reads_do_not_wait_for_each_other(
    database_url: str,
    empty_database_url: str,
    tmp_path: Path,
    open_pack_dir: Path,
    embedder: FaceEmbedder,
    *,
    apart: bool,
) -> None:
    settings = msgspec.structs.replace(
        settings_for(database_url, tmp_path, open_pack_dir),
        database=DatabaseSettings(url=database_url, pool_size=1, timeout=2.0),
        vector_index=VectorIndexSettings(url=empty_database_url if apart else None),
    )
    anybody = Embedding(np.eye(1, embedder.space.dimension, dtype=np.float32)[0], embedder.space.id)
    async with opened(settings, LoadedEmbedder(embedder)) as container:
        index = await container.get(VectorIndex)
        database = await container.get(Database)
        async with database.reads.connect():
            assert await index.search(anybody, gallery=GalleryId(uuid4()), people=1) == []
            assert (await (await container.get(CheckReadiness))()).ready
