import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import httpx
import msgspec
import pytest
from dishka import Scope
from litestar import Litestar

from adapters.rate_limiter.memory import MemoryRateLimiter
from application.ports.credentials import Credentials
from application.use_cases.keys.bootstrap import Bootstrap
from domain import credential
from domain.permission import Role
from entrypoints.settings import CacheSettings, Settings, SettingsError, read_settings
from tests.e2e.in_process import InProcess
from tests.e2e.signed_in import sign_in, signed
from tests.e2e.wire import is_problem
from tests.redis_server import RedisServer, redis_server
from tests.security.house import app_of, calling, key_of, opened, settings_of, with_http, with_rates

FORGED = "fp_" + "A" * 43
GALLERIES = "/api/v1/galleries"


def limited(running: InProcess, settings: Settings, **rates: str) -> Litestar:
    """The service with these limits, and nothing counted yet."""
    app = app_of(running, with_rates(settings, **rates))
    app.state.rate_limits._limiter = MemoryRateLimiter()
    return app


async def another_key(running: InProcess) -> str:
    async with running.container(scope=Scope.REQUEST) as unit:
        made = await (await unit.get(Bootstrap))(new_key=True, scopes=frozenset(credential.Scope))
    assert made.secret is not None
    return made.secret


class TestOneKey:
    async def test_so_many_calls_are_answered_and_no_more(self, house: InProcess, house_settings: Settings) -> None:
        async with calling(limited(house, house_settings, key="3/60"), key=key_of(house)) as client:
            answers = [await client.get(GALLERIES) for _ in range(5)]
        assert [one.status_code for one in answers] == [200, 200, 200, 429, 429]
        assert [one.headers["RateLimit-Remaining"] for one in answers] == ["2", "1", "0", "0", "0"]
        for one in answers:
            assert one.headers["RateLimit-Limit"] == "3"
            assert one.headers["RateLimit-Policy"] == "3;w=60"
            assert 1 <= int(one.headers["RateLimit-Reset"]) <= 60
        is_problem(answers[3], 429, "rate_limited")
        assert 1 <= int(answers[3].headers["Retry-After"]) <= 60
        assert "Retry-After" not in answers[0].headers

    async def test_after_the_time_that_was_named_it_goes_on(self, house: InProcess, house_settings: Settings) -> None:
        async with calling(limited(house, house_settings, key="1/1"), key=key_of(house)) as client:
            assert (await client.get(GALLERIES)).status_code == 200
            refused = await client.get(GALLERIES)
            assert refused.status_code == 429
            await asyncio.sleep(float(refused.headers["Retry-After"]))
            assert (await client.get(GALLERIES)).status_code == 200

    async def test_every_address_and_every_answer_counts(self, house: InProcess, house_settings: Settings) -> None:
        app = limited(house, house_settings, key="3/60")
        for number, path in enumerate((GALLERIES, f"{GALLERIES}/{uuid4()}", "/api/v1/jobs?limit=0", GALLERIES)):
            async with calling(app, address=f"192.0.2.{number}", key=key_of(house)) as client:
                answer = await client.get(path)
            assert (answer.status_code == 429) is (number == 3)
            assert answer.headers["RateLimit-Remaining"] == str(max(0, 2 - number))

    async def test_another_key_has_calls_of_its_own(self, house: InProcess, house_settings: Settings) -> None:
        app = limited(house, house_settings, key="1/60")
        async with calling(app, key=key_of(house)) as one, calling(app, key=await another_key(house)) as other:
            assert (await one.get(GALLERIES)).status_code == 200
            assert (await one.get(GALLERIES)).status_code == 429
            assert (await other.get(GALLERIES)).status_code == 200

    async def test_without_a_limit_nothing_is_counted(self, house: InProcess, house_settings: Settings) -> None:
        async with calling(limited(house, house_settings), key=key_of(house)) as client:
            answers = [await client.get(GALLERIES) for _ in range(5)]
        assert {one.status_code for one in answers} == {200}
        assert "RateLimit-Limit" not in answers[0].headers


class TestOneAddress:
    @pytest.mark.parametrize("key", [None, FORGED])
    async def test_who_fails_too_often_is_refused(
        self, house: InProcess, house_settings: Settings, key: str | None
    ) -> None:
        app = limited(house, house_settings, address="3/60")
        async with calling(app, key=key) as client, calling(app, address="192.0.2.2", key=key) as elsewhere:
            answers = [await client.get(GALLERIES) for _ in range(5)]
            assert (await elsewhere.get(GALLERIES)).status_code == 401
        assert [one.status_code for one in answers] == [401, 401, 401, 429, 429]
        is_problem(answers[4], 429, "rate_limited")
        assert answers[4].headers["Retry-After"]

    async def test_past_the_limit_nothing_is_looked_up(
        self, house: InProcess, house_settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        app = limited(house, house_settings, address="2/60")
        asked: list[object] = []
        credentials = await house.container.get(Credentials)
        real = type(credentials).api_key

        async def counted(self: Credentials, digest: bytes) -> object:
            asked.append(digest)
            return await real(self, digest)

        monkeypatch.setattr(type(credentials), "api_key", counted)
        async with calling(app) as client:
            for number in range(10):
                await client.get(GALLERIES, headers={"X-API-Key": f"fp_{number:043}"})
        assert len(asked) == 2

    async def test_a_key_that_was_good_is_not_held_up_by_whoever_else_is_there(
        self, house: InProcess, house_settings: Settings
    ) -> None:
        app = limited(house, house_settings, address="2/60")
        async with calling(app, key=key_of(house)) as good, calling(app, key=FORGED) as bad:
            assert (await good.get(GALLERIES)).status_code == 200
            assert [(await bad.get(GALLERIES)).status_code for _ in range(3)] == [401, 401, 429]
            assert [(await good.get(GALLERIES)).status_code for _ in range(3)] == [200] * 3

    async def test_a_token_that_was_signed_here_is_not_held_up_either(
        self, house: InProcess, house_settings: Settings
    ) -> None:
        app = limited(house, house_settings, address="2/60")
        now = datetime.now(UTC)
        user = await sign_in(house.container, roles={house.workspace: Role.VIEWER})
        fresh, ended = [
            await signed(house.container, user.user, session, issued=issued)
            for session, issued in ((user.session, now - timedelta(seconds=9)), (user.session, now - timedelta(days=1)))
        ]
        async with calling(app, key=FORGED) as bad, calling(app) as client:
            assert [(await bad.get(GALLERIES)).status_code for _ in range(3)] == [401, 401, 429]
            for token, status in ((fresh, 200), (ended, 429), (fresh[:-4] + "AAAA", 429)):
                answer = await client.get(GALLERIES, headers={"Authorization": f"Bearer {token}"})
                assert answer.status_code == status

    @pytest.mark.parametrize(("meant", "status"), [("01a1f9ba-6210-711f-a62a-9f40b20f2bb1", 404), ("here", 422)])
    async def test_a_good_credential_counts_as_itself_wherever_it_asks_for(
        self, house: InProcess, house_settings: Settings, meant: str, status: int
    ) -> None:
        app = limited(house, house_settings, address="1/60", key="3/60", user="3/60")
        user = await sign_in(house.container, roles={house.workspace: Role.VIEWER})
        for headers in (user.headers, {"X-API-Key": key_of(house)}):
            async with calling(app) as client:
                elsewhere = {**headers, "X-Workspace-Id": meant}
                told = [(await client.get(GALLERIES, headers=elsewhere)).status_code for _ in range(2)]
                told += [(await client.get(GALLERIES, headers=headers)).status_code for _ in range(2)]
            assert told == [status, status, 200, 429]

    async def test_good_calls_do_not_count_against_their_address(
        self, house: InProcess, house_settings: Settings
    ) -> None:
        app = limited(house, house_settings, address="2/60")
        async with calling(app, key=key_of(house)) as good, calling(app) as bad:
            assert {(await good.get(GALLERIES)).status_code for _ in range(10)} == {200}
            assert (await bad.get(GALLERIES)).status_code == 401

    @pytest.mark.parametrize(
        ("one", "other", "same"),
        [
            ("2001:db8::1", "2001:db8::2", True),
            ("2001:db8::1", "2001:db8:0:1::1", False),
            ("192.0.2.1", "::ffff:192.0.2.1", True),
            ("192.0.2.1", "192.0.2.2", False),
        ],
    )
    async def test_a_customers_addresses_count_together(
        self, house: InProcess, house_settings: Settings, one: str, other: str, *, same: bool
    ) -> None:
        app = limited(house, house_settings, address="1/60")
        async with calling(app, address=one) as here, calling(app, address=other) as there:
            assert (await here.get(GALLERIES)).status_code == 401
            assert (await there.get(GALLERIES)).status_code == (429 if same else 401)

    async def test_a_made_up_address_changes_nothing(self, house: InProcess, house_settings: Settings) -> None:
        app = limited(house, house_settings, address="2/60")
        async with calling(app) as client:
            told = [
                await client.get(GALLERIES, headers={"X-Forwarded-For": f"198.51.100.{number}"}) for number in range(4)
            ]
        assert [one.status_code for one in told] == [401, 401, 429, 429]

    async def test_behind_a_trusted_proxy_each_caller_has_an_address(
        self, house: InProcess, house_settings: Settings
    ) -> None:
        app = limited(house, with_http(house_settings, trusted_proxies=("10.0.0.7",)), address="1/60")
        async with calling(app, address="10.0.0.7") as proxy:
            for caller, status in (("198.51.100.1", 401), ("198.51.100.2", 401), ("203.0.113.9, 198.51.100.1", 429)):
                answer = await proxy.get(GALLERIES, headers={"X-Forwarded-For": caller})
                assert answer.status_code == status


class TestOneUser:
    async def test_so_many_calls_are_answered_from_all_sessions_together(
        self, house: InProcess, house_settings: Settings
    ) -> None:
        app = limited(house, house_settings, user="3/60")
        user = await sign_in(house.container, roles={house.workspace: Role.VIEWER})
        again = await signed(house.container, user.user, user.session, issued=datetime.now(UTC) - timedelta(seconds=9))
        assert again != user.token
        answers = []
        for number, token in enumerate((user.token, again, user.token, again, user.token)):
            async with calling(app, address=f"192.0.2.{number}") as client:
                answers.append(await client.get(GALLERIES, headers={"Authorization": f"Bearer {token}"}))
        assert [one.status_code for one in answers] == [200, 200, 200, 429, 429]
        assert [one.headers["RateLimit-Remaining"] for one in answers] == ["2", "1", "0", "0", "0"]
        is_problem(answers[3], 429, "rate_limited")
        assert 1 <= int(answers[3].headers["Retry-After"]) <= 60

    async def test_other_users_and_keys_have_calls_of_their_own(
        self, house: InProcess, house_settings: Settings
    ) -> None:
        app = limited(house, house_settings, user="1/60")
        one, other = [await sign_in(house.container, roles={house.workspace: Role.VIEWER}) for _ in range(2)]
        async with calling(app) as client, calling(app, key=key_of(house)) as by_key:
            assert (await client.get(GALLERIES, headers=one.headers)).status_code == 200
            assert (await client.get(GALLERIES, headers=one.headers)).status_code == 429
            assert (await client.get(GALLERIES, headers=other.headers)).status_code == 200
            assert [(await by_key.get(GALLERIES)).status_code for _ in range(2)] == [200, 200]


class TestSigningIn:
    async def test_an_address_has_so_many_calls_whomever_they_name(
        self, house: InProcess, house_settings: Settings
    ) -> None:
        app = limited(house, house_settings, auth="3/60")
        async with calling(app) as client, calling(app, address="192.0.2.2") as elsewhere:
            answers = [
                await client.post("/api/v1/auth/login", json={"email": f"{uuid4().hex}@example.org", "password": "x"})
                for _ in range(5)
            ]
            assert (await elsewhere.post("/api/v1/auth/link", json={"token": "x"})).status_code == 422
        assert [one.status_code for one in answers] == [401, 401, 401, 429, 429]
        assert [one.headers["RateLimit-Remaining"] for one in answers] == ["2", "1", "0", "0", "0"]
        is_problem(answers[3], 429, "rate_limited")
        assert 1 <= int(answers[3].headers["Retry-After"]) <= 60

    @pytest.mark.parametrize("path", ["register", "login", "refresh", "password/reset", "link"])
    async def test_all_that_needs_no_credential_counts_together(
        self, house: InProcess, house_settings: Settings, path: str
    ) -> None:
        async with calling(limited(house, house_settings, auth="1/60")) as client:
            assert (await client.post("/api/v1/auth/link", json={"token": "x"})).status_code == 422
            is_problem(await client.post(f"/api/v1/auth/{path}", json={}), 429, "rate_limited")

    async def test_it_holds_up_nobody_who_is_signed_in(self, house: InProcess, house_settings: Settings) -> None:
        user = await sign_in(house.container, roles={house.workspace: Role.VIEWER})
        async with calling(limited(house, house_settings, auth="1/60")) as client:
            told = [(await client.post("/api/v1/auth/link", json={"token": "x"})).status_code for _ in range(2)]
            assert told == [422, 429]
            assert (await client.get("/api/v1/auth/me", headers=user.headers)).status_code == 200

    async def test_changing_a_password_counts_for_its_user(self, house: InProcess, house_settings: Settings) -> None:
        one, other = [await sign_in(house.container, roles={house.workspace: Role.VIEWER}) for _ in range(2)]
        body = {"current_password": "x", "new_password": "y"}
        async with calling(limited(house, house_settings, auth="2/60")) as client:
            for user, expected in ((one, [False, False, True]), (other, [False])):
                told = [
                    (await client.post("/api/v1/auth/password", json=body, headers=user.headers)).status_code
                    for _ in expected
                ]
                assert [status == 429 for status in told] == expected


class TestSeveralNodes:
    """Two containers, as two nodes have them."""

    @pytest.mark.parametrize(("rates", "good"), [({"key": "20/600"}, True), ({"address": "20/600"}, False)])
    async def test_with_one_redis_they_allow_as_many_together_as_one(
        self,
        database_url: str,
        tmp_path: Path,
        rates: dict[str, str],
        good: bool,  # noqa: FBT001 - a case
    ) -> None:
        with redis_server() as server:
            async with two_nodes(database_url, tmp_path, server, **rates) as (apps, key):
                statuses = await asked(apps, 30, key if good else None)
        allowed = 200 if good else 401
        assert statuses == Counter({allowed: 20, 429: 40})

    async def test_while_redis_is_away_each_counts_for_itself(self, database_url: str, tmp_path: Path) -> None:
        with redis_server() as server:
            async with two_nodes(database_url, tmp_path, server, key="20/600") as (apps, key):
                server.kill()
                statuses = await asked(apps, 30, key)
        assert statuses == Counter({200: 40, 429: 20})


@asynccontextmanager
async def two_nodes(
    url: str, folder: Path, server: RedisServer, **rates: str
) -> AsyncIterator[tuple[list[Litestar], str]]:

    shared = with_rates(settings_of(url, folder), **rates)
    settings = msgspec.structs.replace(shared, cache=CacheSettings(backend="redis", url=server.url))
    async with opened(settings) as here, opened(settings) as there:
        yield [here.app, there.app], key_of(here)


async def asked(apps: list[Litestar], each: int, key: str | None) -> Counter[int]:
    """Call every node so often, a few at once, and count the answers."""
    few = asyncio.Semaphore(4)  # more, and a busy machine takes its Redis for one that hangs

    async def status(client: httpx.AsyncClient) -> int:
        async with few:
            return (await client.get(GALLERIES)).status_code

    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(calling(app, key=key)) for app in apps]
        return Counter(await asyncio.gather(*(status(client) for _ in range(each) for client in clients)))


class TestSettings:
    @pytest.mark.parametrize("rate", ["0/60", "600", "600/0", "-1/60", "600/60/1", "many", "1e3/60", "600 / 60"])
    @pytest.mark.parametrize("name", ["KEY", "USER", "ADDRESS", "AUTH"])
    def test_what_is_no_rate_stops_the_start(self, name: str, rate: str) -> None:
        with pytest.raises(SettingsError, match=rf"^FACEPASS_RATE_LIMITS__{name}: "):
            read_settings({f"FACEPASS_RATE_LIMITS__{name}": rate}, dotenv=None)
