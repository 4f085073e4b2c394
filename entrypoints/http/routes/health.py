"""/health."""

from dishka.integrations.litestar import FromDishka, inject
from litestar import Response, get

from application.use_cases.upkeep.check_readiness import CheckReadiness
from entrypoints.http.shapes import ReadinessShape

_UNAVAILABLE = 503
_RETRY_AFTER = "2"


@get(["/health", "/health/live"], description="The process is there and its event loop turns. Asks nobody else.")
async def live() -> dict[str, str]:
    """Is the process there?"""
    return {"status": "live"}


@get(
    "/health/ready",
    description=(
        "The service can do its work: every backend that calls need answers, and an inference ran. `degraded` is ready "
        "too: queue, cache or limits are away, and their work is put off or done in the process."
    ),
)
@inject
async def ready(check: FromDishka[CheckReadiness]) -> Response[ReadinessShape]:
    """Can it do its work?"""
    readiness = await check()
    status = "degraded" if readiness.degraded else "ready" if readiness.ready else "not_ready"
    return Response(
        ReadinessShape(status=status, checks=readiness.checks),
        status_code=200 if readiness.ready else _UNAVAILABLE,
        headers={} if readiness.ready else {"Retry-After": _RETRY_AFTER},
    )
