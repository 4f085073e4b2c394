"""The API pages, served from this machine: they work without a network."""

from importlib.util import find_spec
from pathlib import Path
from secrets import token_urlsafe
from typing import Any

from litestar import Request, get
from litestar.openapi import ResponseSpec
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import SwaggerRenderPlugin
from litestar.openapi.spec import Components, Contact, License, SecurityScheme
from litestar.router import Router
from litestar.static_files import create_static_files_router

from entrypoints.http.problems import MEDIA_TYPE as PROBLEM_MEDIA_TYPE
from entrypoints.http.problems import Problem
from entrypoints.http.security_headers import CONTENT_POLICY, page_policy

ASSETS = "/docs-assets"

_DESCRIPTION = """\
Enrol people, verify a face (1:1), search a face (1:N).

**Similarity** is the raw cosine in -1..1, not a probability; every answer carries the threshold it was
compared with, where that came from, and its error rate. **Images** are sent as a multipart file `image` or as
base64 in JSON; JPEG, PNG or WebP. **Errors** are RFC 9457 problem documents with a stable `code`.

Press *Authorize* and paste an API key, which `facepass bootstrap` makes, or an access token, which `/auth/login` gives.
"""


PROBLEMS = {
    status: ResponseSpec(Problem, generate_examples=False, description=what, media_type=PROBLEM_MEDIA_TYPE)
    for status, what in {
        400: "The request cannot be read as HTTP says it should be.",
        401: "No API key and no access token, or one that is not good (any longer).",
        403: "The key lacks the scope, or the user the role, that this needs.",
        404: "What was named is not there, or not in this workspace.",
        408: "The body did not come in time.",
        409: "What was asked contradicts what is there.",
        412: "`If-Match` names a version that is not the current one.",
        413: "An image or a body is too large.",
        415: "Neither JSON nor a multipart form, or an image of another format than JPEG, PNG and WebP.",
        422: "What was sent cannot be used; `code` says why, `errors` names the fields.",
        429: "More calls than the key, the user or the address may make; `Retry-After` says when to go on.",
        503: "Busy, or something that this needs is down; `Retry-After` says when to try again.",
    }.items()
}
"""What any route behind the door may answer in place of its result."""


class _Pages(SwaggerRenderPlugin):
    """Swagger UI, whose one script inside the page says by a nonce that it is ours."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """Return the page, and leave its policy where the answer's headers are made."""
        nonce = token_urlsafe(16)
        request.scope[CONTENT_POLICY] = page_policy(nonce)  # type: ignore[literal-required]  # ours beside Litestar's
        page = super().render(request, openapi_schema)
        marked = f" nonce='{nonce}'".encode()
        return page.replace(b"<script type=", b"<script" + marked + b" type=", 1).replace(
            b"<style>", b"<style" + marked + b">", 1
        )


def openapi_config(version: str) -> OpenAPIConfig:
    """Return what `/openapi.json` and `/docs` say."""
    return OpenAPIConfig(
        title="Facepass",
        version=version,
        description=_DESCRIPTION,
        path="/docs",
        license=License(name="Apache-2.0", identifier="Apache-2.0"),
        contact=Contact(name="Facepass"),
        components=Components(
            security_schemes={
                "api_key": SecurityScheme(type="apiKey", security_scheme_in="header", name="X-API-Key"),
                "access_token": SecurityScheme(type="http", scheme="bearer", bearer_format="JWT"),
            }
        ),
        security=[{"api_key": []}, {"access_token": []}],
        render_plugins=[
            _Pages(
                path="/",
                js_url=f"{ASSETS}/swagger-ui-bundle.js",
                css_url=f"{ASSETS}/swagger-ui.css",
                standalone_preset_js_url=f"{ASSETS}/swagger-ui-standalone-preset.js",
                favicon=f"<link rel='icon' type='image/png' href='{ASSETS}/favicon-32x32.png'>",
            )
        ],
        use_handler_docstrings=False,
    )


@get("/openapi.json", media_type="application/json", include_in_schema=False)
async def openapi_document(request: Request[Any, Any, Any]) -> dict[str, Any]:
    """Return the OpenAPI document, where tools look for it."""
    return request.app.openapi_schema.to_schema()


def assets_router() -> Router:
    """Serve Swagger UI's files from the installed package `swagger-ui-py`, whose code is not needed."""
    spec = find_spec("swagger_ui")
    if spec is None or spec.origin is None:
        raise RuntimeError("the package swagger-ui-py is not installed")
    return create_static_files_router(
        path=ASSETS, directories=[Path(spec.origin).parent / "static"], include_in_schema=False
    )
