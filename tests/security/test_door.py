from collections.abc import Mapping, Sequence

import httpx
import pytest
from litestar import Litestar

from entrypoints.http.app import make_app
from entrypoints.settings import Settings, SettingsError, read_settings
from tests.e2e.in_process import InProcess
from tests.e2e.wire import is_problem
from tests.security.house import app_of, calling, key_of, with_http
from tests.security.listening import listening

OF_DATA = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
PAGE = "https://app.example.org"
EVERY_KIND_OF_ANSWER = [
    ("GET", "/api/v1/galleries", 200),
    ("GET", "/api/v1/galleries/01a1f9ba-6210-711f-a62a-9f40b20f2bb1", 404),
    ("GET", "/api/v1/nothing", 404),
    ("PUT", "/api/v1/galleries", 405),
    ("POST", "/api/v1/galleries", 422),
    ("OPTIONS", "/api/v1/galleries", 204),
    ("GET", "/health/live", 200),
    ("GET", "/openapi.json", 200),
    ("GET", "/docs", 200),
    ("GET", "/docs-assets/swagger-ui.css", 200),
    ("GET", "/", 404),
]


@pytest.fixture(scope="module")
def plain(house: InProcess, house_settings: Settings) -> Litestar:
    return app_of(house, house_settings)


class TestSecurityHeaders:
    @pytest.mark.parametrize(("method", "path", "status"), EVERY_KIND_OF_ANSWER)
    async def test_every_answer_has_them(
        self, plain: Litestar, house: InProcess, method: str, path: str, status: int
    ) -> None:
        async with calling(plain, key=key_of(house)) as client:
            answer = await client.request(method, path, follow_redirects=True)
        assert answer.status_code == status
        for name, value in {
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cross-Origin-Opener-Policy": "same-origin",
        }.items():
            assert answer.headers.get_list(name) == [value]
        assert len(answer.headers.get_list("Content-Security-Policy")) == 1
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
        assert "Strict-Transport-Security" not in answer.headers
        assert "Server" not in answer.headers

    @pytest.mark.parametrize(("method", "path", "status"), EVERY_KIND_OF_ANSWER)
    async def test_nothing_but_the_pages_own_files_is_kept_by_caches(
        self, plain: Litestar, house: InProcess, method: str, path: str, status: int
    ) -> None:
        async with calling(plain, key=key_of(house)) as client:
            answer = await client.request(method, path, follow_redirects=True)
        assert answer.status_code == status
        assert ("no-store" in answer.headers.get("Cache-Control", "")) is not path.startswith("/docs-assets")

    async def test_what_is_no_page_may_do_nothing(self, plain: Litestar) -> None:
        async with calling(plain) as client:
            for path in ("/api/v1/galleries", "/openapi.json", "/health/live"):
                assert (await client.get(path)).headers["Content-Security-Policy"] == OF_DATA

    async def test_the_pages_run_the_one_script_that_is_theirs(self, plain: Litestar) -> None:
        async with calling(plain) as client:
            first, second = [await client.get("/docs", follow_redirects=True) for _ in range(2)]
        nonces = []
        for answer in (first, second):
            nonce = answer.headers["Content-Security-Policy"].partition("'nonce-")[2].partition("'")[0]
            assert len(nonce) > 16
            assert answer.text.count("<script>") == 0
            assert f"<script nonce='{nonce}'" in answer.text
            nonces.append(nonce)
        assert len(set(nonces)) == 2

    async def test_an_unforeseen_error_has_them_too(self, house: InProcess, house_settings: Settings) -> None:
        plain = app_of(house, house_settings)
        del plain.state["max_image_bytes"]  # so that reading a body breaks
        async with calling(plain, key=key_of(house)) as client:
            answer = await client.post("/api/v1/galleries", json={"name": "x"})
        is_problem(answer, 500, "internal_error")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"

    async def test_browsers_are_told_to_come_by_https_where_they_did_or_where_it_is_set(
        self, house: InProcess, house_settings: Settings
    ) -> None:
        told = app_of(house, with_http(house_settings, hsts=True))
        behind = app_of(house, with_http(house_settings, trusted_proxies=("10.0.0.7",)))
        by_https = {"X-Forwarded-Proto": "https"}
        cases: Sequence[tuple[Litestar, str, Mapping[str, str], bool]] = (
            (told, "192.0.2.1", {}, True),
            (behind, "10.0.0.7", by_https, True),
            (behind, "10.0.0.7", {}, False),
            (behind, "192.0.2.1", by_https, False),
        )
        for app, address, headers, expected in cases:
            async with calling(app, address=address) as client:
                answer = await client.get("/health/live", headers=dict(headers))
            assert ("Strict-Transport-Security" in answer.headers) is expected


class TestCrossOrigin:
    @pytest.mark.parametrize("origins", [(), ("https://other.example.org",)])
    async def test_a_page_of_elsewhere_may_read_nothing(
        self, house: InProcess, house_settings: Settings, origins: tuple[str, ...]
    ) -> None:
        app = app_of(house, with_http(house_settings, cors_origins=origins))
        async with calling(app, key=key_of(house)) as client:
            answer = await client.get("/api/v1/galleries", headers={"Origin": PAGE})
            asked = await client.options(
                "/api/v1/galleries", headers={"Origin": PAGE, "Access-Control-Request-Method": "GET"}
            )
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert "Access-Control-Allow-Origin" not in asked.headers

    @pytest.mark.parametrize("origin", [PAGE + ".evil.org", PAGE + ":8443", "http://app.example.org", "null"])
    async def test_what_only_looks_like_a_page_of_ours_may_read_nothing(
        self, house: InProcess, house_settings: Settings, origin: str
    ) -> None:
        app = app_of(house, with_http(house_settings, cors_origins=(PAGE,)))
        async with calling(app, key=key_of(house)) as client:
            assert (
                "Access-Control-Allow-Origin"
                not in (await client.get("/api/v1/galleries", headers={"Origin": origin})).headers
            )

    @pytest.mark.parametrize(("method", "path", "status"), EVERY_KIND_OF_ANSWER)
    async def test_a_page_of_ours_may_read_every_answer_with_its_headers(
        self, house: InProcess, house_settings: Settings, method: str, path: str, status: int
    ) -> None:
        app = app_of(house, with_http(house_settings, cors_origins=(PAGE,)))
        async with calling(app, key=key_of(house)) as client:
            answer = await client.request(method, path, headers={"Origin": PAGE}, follow_redirects=True)
        assert answer.status_code == status
        assert answer.headers["Access-Control-Allow-Origin"] == PAGE
        assert "Origin" in answer.headers["Vary"]
        assert "Access-Control-Allow-Credentials" not in answer.headers
        if method != "OPTIONS":
            shown = {name.strip().lower() for name in answer.headers["Access-Control-Expose-Headers"].split(",")}
            assert {
                "x-request-id",
                "ratelimit-remaining",
                "ratelimit-limit",
                "retry-after",
                "etag",
                "location",
            } <= shown

    @pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
    async def test_a_browser_that_asks_first_is_told(
        self, house: InProcess, house_settings: Settings, method: str
    ) -> None:
        app = app_of(house, with_http(house_settings, cors_origins=(PAGE,)))
        headers = {
            "Origin": PAGE,
            "Access-Control-Request-Method": method,
            "Access-Control-Request-Headers": "authorization,x-api-key,idempotency-key,if-match,x-workspace-id",
        }
        async with calling(app) as client:
            answer = await client.options("/api/v1/galleries/default", headers=headers)
            strange = {**headers, "Access-Control-Request-Headers": "x-strange"}
            refused = await client.options("/api/v1/galleries/default", headers=strange)
        assert answer.status_code == 204
        assert answer.headers["Access-Control-Allow-Origin"] == PAGE
        assert method in answer.headers["Access-Control-Allow-Methods"]
        allowed = answer.headers["Access-Control-Allow-Headers"].lower()
        assert all(name in allowed for name in headers["Access-Control-Request-Headers"].split(","))
        assert "Access-Control-Allow-Credentials" not in answer.headers
        assert refused.status_code == 400

    async def test_every_page_means_no_cookies(self, house: InProcess, house_settings: Settings) -> None:
        app = app_of(house, with_http(house_settings, cors_origins=("*",)))
        async with calling(app) as client:
            answer = await client.get("/health/live", headers={"Origin": PAGE})
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert "Access-Control-Allow-Credentials" not in answer.headers

    @pytest.mark.parametrize("origin", ["example.org", "https://example.org/", "https://*.example.org", "null", "x"])
    def test_what_is_no_origin_stops_the_start(self, origin: str) -> None:
        with pytest.raises(SettingsError, match=r"^FACEPASS_HTTP__CORS_ORIGINS: "):
            read_settings({"FACEPASS_HTTP__CORS_ORIGINS": origin}, dotenv=None)


class TestHosts:
    @pytest.mark.parametrize(
        ("host", "status"),
        [
            ("faces.example.org", 401),
            ("faces.example.org:8000", 401),
            ("FACES.example.org", 401),
            ("a.below.example.org", 401),
            ("[::1]:8000", 401),
            ("below.example.org", 400),
            ("faces.example.org.evil.org", 400),
            ("evil-below.example.org", 400),
            ("evil.org", 400),
            ("evil.org:faces.example.org", 400),
            ("", 400),
        ],
    )
    async def test_a_call_for_another_host_is_refused(
        self, house: InProcess, house_settings: Settings, host: str, status: int
    ) -> None:
        names = ("faces.example.org", "*.below.example.org", "[::1]")
        async with calling(app_of(house, with_http(house_settings, allowed_hosts=names))) as client:
            answer = await client.get("/api/v1/galleries", headers={"Host": host})
            alive = await client.get("/health/live", headers={"Host": host})
        is_problem(answer, status, "credential_missing" if status == 401 else "invalid_request")
        assert alive.status_code == 200

    @pytest.mark.parametrize("host", ["*", "https://a.org", "a.org:80", "a*.org", "A.org"])
    def test_what_is_no_host_stops_the_start(self, host: str) -> None:
        with pytest.raises(SettingsError, match=r"^FACEPASS_HTTP__ALLOWED_HOSTS: "):
            read_settings({"FACEPASS_HTTP__ALLOWED_HOSTS": host}, dotenv=None)


class TestProxies:
    """Who is calling, as everything behind the door sees it."""

    @pytest.mark.parametrize(
        ("trusted", "connected", "told", "caller"),
        [
            ((), "127.0.0.1", ["198.51.100.9"], "127.0.0.1"),
            ((), "192.0.2.1", ["198.51.100.9"], "192.0.2.1"),
            (("10.0.0.7",), "192.0.2.1", ["198.51.100.9"], "192.0.2.1"),
            (("10.0.0.7",), "10.0.0.7", [], "10.0.0.7"),
            (("10.0.0.7",), "10.0.0.7", ["198.51.100.9"], "198.51.100.9"),
            # What the client wrote itself stands to the left of what the proxy saw.
            (("10.0.0.7",), "10.0.0.7", ["203.0.113.1, 198.51.100.9"], "198.51.100.9"),
            (("10.0.0.7",), "10.0.0.7", ["203.0.113.1", "198.51.100.9"], "198.51.100.9"),
            (("10.0.0.0/24",), "10.0.0.7", ["203.0.113.1, 198.51.100.9, 10.0.0.8"], "198.51.100.9"),
            (("10.0.0.7",), "10.0.0.7", ["198.51.100.9, 10.0.0.8"], "10.0.0.8"),
            (("::1",), "::1", ["2001:db8::5"], "2001:db8::5"),
        ],
    )
    async def test_only_a_trusted_proxy_says_who_calls(  # noqa: PLR0917 - two fixtures and a case
        self,
        house: InProcess,
        house_settings: Settings,
        trusted: tuple[str, ...],
        connected: str,
        told: list[str],
        caller: str,
    ) -> None:
        app = make_app(house.container, with_http(house_settings, trusted_proxies=trusted))
        assert await seen(app, connected, told) == caller

    @pytest.mark.parametrize("proxy", ["*", "proxy.example.org", "10.0.0.7/8", "10.0.0"])
    def test_whom_nobody_can_tell_from_others_is_not_trusted(self, proxy: str) -> None:
        with pytest.raises(SettingsError, match=r"^FACEPASS_HTTP__TRUSTED_PROXIES: "):
            read_settings({"FACEPASS_HTTP__TRUSTED_PROXIES": proxy}, dotenv=None)

    async def test_a_service_on_a_socket_believes_nobody_unasked(
        self, house: InProcess, house_settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")  # what uvicorn alone would heed
        app = app_of(house, house_settings)
        callers = callers_of(app)
        async with listening(app, house_settings) as url, httpx.AsyncClient() as client:
            await client.get(f"{url}/health/live", headers={"X-Forwarded-For": "198.51.100.9"})
        assert callers == ["127.0.0.1"]


class TestPages:
    @pytest.mark.parametrize(
        ("environment", "docs", "served"),
        [
            ("development", None, True),
            ("production", None, False),
            ("production", True, True),
            ("development", False, False),
        ],
    )
    def test_production_shows_no_pages_unless_asked(self, environment: str, docs: bool | None, served: bool) -> None:  # noqa: FBT001 - a case
        given = {"FACEPASS_ENVIRONMENT": environment, "FACEPASS_HTTP__DOCS": "" if docs is None else str(docs).lower()}
        assert read_settings(given, dotenv=None).serves_docs is served

    async def test_pages_that_are_off_are_not_there(self, house: InProcess, house_settings: Settings) -> None:
        async with calling(app_of(house, with_http(house_settings, docs=False))) as client:
            for path in (
                "/docs",
                "/docs/",
                "/openapi.json",
                "/docs-assets/swagger-ui.css",
                "/docs/openapi.json",
                "/schema",
            ):
                assert (await client.get(path)).status_code == 404


async def seen(app: Litestar, connected: str, told: Sequence[str]) -> str:
    """Return who called, as the application sees it."""
    callers = callers_of(app)
    async with calling(app, address=connected) as client:
        await client.get("/health/live", headers=[("X-Forwarded-For", one) for one in told])
    (caller,) = callers
    return caller


def callers_of(app: Litestar) -> list[str]:
    """Return a list to which each caller's address will be added."""
    callers: list[str] = []

    async def note(request: object) -> None:
        callers.append(request.client.host)  # type: ignore[attr-defined]  # a Litestar request

    for route in app.routes:
        for handler in getattr(route, "route_handlers", ()):
            handler._resolved_before_request = note
    return callers
