"""/faces, /verify, /search."""

from inspect import getdoc
from typing import Any

import structlog
from dishka.integrations.litestar import FromDishka, inject
from litestar import Request, post

from application.ports.face_embedder import FaceEmbedder
from application.use_cases.batch import each
from application.use_cases.matching.compare_faces import CompareFaces
from application.use_cases.matching.detect_faces import DetectFaces
from application.use_cases.matching.embed_faces import EmbedFaces
from application.use_cases.matching.search_faces import SearchFaces, SearchResult
from application.use_cases.matching.verify_face import VerifyFace
from domain.enrolment import ReferenceId
from domain.errors import FacepassError, InvalidValue
from domain.permission import Permission
from domain.person import PersonId
from domain.workspace import WorkspaceId
from entrypoints.http.access import gallery_of, workspace_of
from entrypoints.http.bodies import (
    CompareBody,
    ImageBody,
    SearchBatchBody,
    SearchBody,
    VerifyBatchBody,
    VerifyBody,
    read_body,
)
from entrypoints.http.capacity_watch import CapacityWatch
from entrypoints.http.openapi import takes
from entrypoints.http.problems import problem_of
from entrypoints.http.request_context import took_ms
from entrypoints.http.shapes import (
    BatchItemShape,
    BatchShape,
    DetectedShape,
    EmbeddedShape,
    SearchedShape,
    VerifiedShape,
    to_compared,
    to_detected,
    to_embedded,
    to_searched,
    to_verified,
)

log = structlog.get_logger("facepass.matching")


@post(
    "/faces/detect",
    needs=Permission.READ,
    status_code=200,
    operation_class=takes(ImageBody),
    description=getdoc(DetectFaces),
    summary="Find every face",
)
@inject
async def detect_faces(
    request: Request[Any, Any, Any], detect: FromDishka[DetectFaces], embedder: FromDishka[FaceEmbedder]
) -> DetectedShape:
    """Find every face."""
    image = _one_image((await read_body(request, ImageBody)).fields)
    analysis = await detect(image=image)
    return to_detected(analysis, model=embedder.space.model, took_ms=took_ms(request.scope))


@post(
    "/faces/embed",
    needs=Permission.EMBED,
    status_code=200,
    operation_class=takes(ImageBody),
    description=getdoc(EmbedFaces),
    summary="Embed every face",
)
@inject
async def embed_faces(
    request: Request[Any, Any, Any], embed: FromDishka[EmbedFaces], embedder: FromDishka[FaceEmbedder]
) -> EmbeddedShape:
    """Embed every face."""
    image = _one_image((await read_body(request, ImageBody)).fields)
    analysis = await embed(workspace=workspace_of(request), image=image)
    return to_embedded(analysis, model=embedder.space.model, took_ms=took_ms(request.scope))


@post(
    "/faces/compare",
    needs=Permission.VERIFY,
    status_code=200,
    operation_class=takes(CompareBody),
    description=getdoc(CompareFaces),
    summary="Compare two images",
)
@inject
async def compare_faces(request: Request[Any, Any, Any], compare: FromDishka[CompareFaces]) -> VerifiedShape:
    """Compare two images."""
    body = (await read_body(request, CompareBody)).fields
    comparison = await compare(
        workspace=workspace_of(request),
        frames=body.frames(),
        other_image=_other(body),
        threshold=body.threshold,
        target_fmr=body.target_fmr,
    )
    return to_compared(comparison, took_ms=took_ms(request.scope))


@post(
    "/verify",
    needs=Permission.VERIFY,
    status_code=200,
    operation_class=takes(VerifyBody),
    description=getdoc(VerifyFace),
    summary="Verify a face against a person, a reference or a second image",
)
@inject
async def verify_face(
    request: Request[Any, Any, Any], verify: FromDishka[VerifyFace], compare: FromDishka[CompareFaces]
) -> VerifiedShape:
    """Verify a face against a person, a reference or a second image."""
    body = (await read_body(request, VerifyBody)).fields
    return await _verified(request, body, workspace_of(request), verify, compare)


@post(
    "/verify/batch",
    needs=Permission.VERIFY,
    status_code=200,
    operation_class=takes(VerifyBatchBody),
    description="Verify up to 100 faces in one call; each item has its result or its problem.",
    summary="Verify many faces",
)
@inject
async def verify_batch(
    request: Request[Any, Any, Any], verify: FromDishka[VerifyFace], compare: FromDishka[CompareFaces]
) -> BatchShape:
    """Verify many faces."""
    body = (await read_body(request, VerifyBatchBody)).fields
    workspace = workspace_of(request)
    results = await each(body.items, lambda item: _verified(request, item, workspace, verify, compare))
    return BatchShape(
        items=[
            BatchItemShape(index=index, problem=problem_of(result))
            if isinstance(result, FacepassError)
            else BatchItemShape(index=index, verified=result)
            for index, result in enumerate(results)
        ]
    )


@post(
    "/search",
    needs=Permission.SEARCH,
    status_code=200,
    operation_class=takes(SearchBody),
    description=getdoc(SearchFaces),
    summary="Search for the faces of an image",
)
@inject
async def search_faces(
    request: Request[Any, Any, Any], search: FromDishka[SearchFaces], watch: FromDishka[CapacityWatch]
) -> SearchedShape:
    """Search for the faces of an image."""
    body = (await read_body(request, SearchBody)).fields
    workspace = workspace_of(request)
    return await _searched(request, body, workspace, search, watch)


@post(
    "/search/batch",
    needs=Permission.SEARCH,
    status_code=200,
    operation_class=takes(SearchBatchBody),
    description="Search for up to 100 images in one call; each item has its result or its problem.",
    summary="Search for many images",
)
@inject
async def search_batch(
    request: Request[Any, Any, Any], search: FromDishka[SearchFaces], watch: FromDishka[CapacityWatch]
) -> BatchShape:
    """Search for many images."""
    body = (await read_body(request, SearchBatchBody)).fields
    workspace = workspace_of(request)
    results = await each(body.items, lambda item: _searched(request, item, workspace, search, watch))
    return BatchShape(
        items=[
            BatchItemShape(index=index, problem=problem_of(result))
            if isinstance(result, FacepassError)
            else BatchItemShape(index=index, searched=result)
            for index, result in enumerate(results)
        ]
    )


async def _verified(
    request: Request[Any, Any, Any],
    body: VerifyBody,
    workspace: WorkspaceId,
    verify: VerifyFace,
    compare: CompareFaces,
) -> VerifiedShape:
    named = [body.person_id, body.external_id, body.reference_id, body.other_image]
    if sum(one is not None for one in named) != 1:
        raise InvalidValue(
            "name exactly one of person_id, external_id, reference_id and other_image", field="person_id"
        )
    if body.other_image is not None:
        comparison = await compare(
            workspace=workspace,
            frames=body.frames(),
            other_image=body.other_image,
            threshold=body.threshold,
            target_fmr=body.target_fmr,
        )
        return to_compared(comparison, took_ms=took_ms(request.scope))
    verification = await verify(
        workspace=workspace,
        frames=body.frames(),
        gallery=await gallery_of(request, body.gallery),
        claimed=body.external_id if body.person_id is None else PersonId(body.person_id),
        reference=None if body.reference_id is None else ReferenceId(body.reference_id),
        threshold=body.threshold,
        target_fmr=body.target_fmr,
    )
    return to_verified(verification, took_ms=took_ms(request.scope))


async def _searched(
    request: Request[Any, Any, Any],
    body: SearchBody,
    workspace: WorkspaceId,
    search: SearchFaces,
    watch: CapacityWatch,
) -> SearchedShape:
    if body.faces not in {"largest", "all"}:
        raise InvalidValue("faces is 'largest' or 'all'", field="faces")
    result = await search(
        workspace=workspace,
        frames=body.frames(),
        gallery=await gallery_of(request, body.gallery),
        every_face=body.faces == "all",
        limit=body.limit,
        threshold=body.threshold,
        target_fpir=body.target_fpir,
        among=None if body.people is None else [PersonId(person) for person in body.people],
    )
    _warn_of_damaged(result)
    await watch.look(workspace, await gallery_of(request, body.gallery))
    return to_searched(result, took_ms=took_ms(request.scope))


def _warn_of_damaged(result: SearchResult) -> None:
    for reference in sorted({reference for face in result.faces for reference in face.damaged}):
        log.warning("template_damaged", reference=str(reference))


def _one_image(body: ImageBody) -> bytes:
    frames = body.frames()
    if len(frames) != 1:
        raise InvalidValue("send one image", field="image")
    return frames[0]


def _other(body: CompareBody) -> bytes:
    if body.other_image is None:
        raise InvalidValue("send the second image as `other_image`", field="other_image")
    return body.other_image
