import asyncio
import base64
import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import jwt
import pytest

from adapters.security.access_tokens import JwtAccessTokens
from adapters.security.keyed_hash import HmacKeyedHash
from adapters.security.secret import KEY_LENGTH, Secret
from adapters.system.id_generator import UuidV7Generator
from application.ports.access_tokens import AccessClaims, SigningKey, SigningKeyId, SigningKeyRecord
from domain.errors import CredentialInvalid
from domain.user import SessionId, UserId

IDS = UuidV7Generator()
NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
HASH = HmacKeyedHash(Secret(bytes(range(KEY_LENGTH))))
KID = SigningKeyId(IDS.new())
CLAIMS = AccessClaims(
    user=UserId(UUID(int=1)), session=SessionId(UUID(int=2)), issued_at=NOW, expires_at=NOW + timedelta(minutes=15)
)


class Kept(SigningKeyRecord):
    """Signing keys in memory, which count how often they are asked for."""

    def __init__(self, *keys: SigningKey) -> None:
        self.keys = list(keys)
        self.asked = 0

    async def all(self) -> Sequence[SigningKey]:
        self.asked += 1
        return list(self.keys)


@pytest.fixture
def record() -> Kept:
    return Kept(SigningKey(id=KID, created_at=NOW))


@pytest.fixture
def tokens(record: Kept) -> JwtAccessTokens:
    return JwtAccessTokens(HASH, record)


def parts(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    head, body, _ = token.split(".")
    return _decoded(head), _decoded(body)


def signed(header: dict[str, Any], claims: dict[str, Any], *, key: bytes, algorithm: str = "HS256") -> str:
    return jwt.encode(claims, key, algorithm=algorithm, headers=header)


def secret(kid: UUID = KID) -> bytes:
    """What whoever has the master key can sign with: to make tokens that are wrong in one point alone."""
    return HASH.digest("access-token", kid.bytes)


async def refused(tokens: JwtAccessTokens, token: str, now: datetime = NOW) -> None:
    with pytest.raises(CredentialInvalid):
        await tokens.read(token, now=now)


async def test_what_was_signed_is_read(tokens: JwtAccessTokens) -> None:
    assert await tokens.read(tokens.signed(CLAIMS, key=KID), now=NOW) == CLAIMS


async def test_a_token_names_its_key_and_holds_no_right_and_nothing_personal(tokens: JwtAccessTokens) -> None:
    header, claims = parts(tokens.signed(CLAIMS, key=KID))
    assert header == {"alg": "HS256", "typ": "at+jwt", "kid": str(KID)}
    assert set(claims) == {"iss", "aud", "sub", "sid", "iat", "exp", "jti"}
    assert (claims["sub"], claims["sid"]) == (str(CLAIMS.user), str(CLAIMS.session))


async def test_a_token_of_another_process_is_read(record: Kept, tokens: JwtAccessTokens) -> None:
    other = JwtAccessTokens(HmacKeyedHash(Secret(bytes(range(KEY_LENGTH)))), record)
    assert await other.read(tokens.signed(CLAIMS, key=KID), now=NOW) == CLAIMS


@pytest.mark.parametrize(
    ("after", "good"),
    [
        (timedelta(0), True),
        (timedelta(minutes=15), True),
        (timedelta(minutes=15, seconds=6), False),
        (timedelta(days=400), False),
        (timedelta(seconds=-6), False),
    ],
)
async def test_a_token_is_good_for_its_time_and_a_little_leeway(
    tokens: JwtAccessTokens, *, after: timedelta, good: bool
) -> None:
    token = tokens.signed(CLAIMS, key=KID)
    if good:
        assert await tokens.read(token, now=NOW + after) == CLAIMS
    else:
        await refused(tokens, token, NOW + after)


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE"])
async def test_a_token_without_a_signature_is_refused(tokens: JwtAccessTokens, name: str) -> None:
    header, claims = parts(tokens.signed(CLAIMS, key=KID))
    body = _encoded({**header, "alg": name}) + "." + _encoded(claims)
    await refused(tokens, body + ".")
    await refused(tokens, body)
    await refused(tokens, body + "." + tokens.signed(CLAIMS, key=KID).rpartition(".")[2])


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
@pytest.mark.filterwarnings("ignore:The HMAC key")
async def test_another_algorithm_with_the_right_key_is_refused(tokens: JwtAccessTokens, algorithm: str) -> None:
    header, claims = parts(tokens.signed(CLAIMS, key=KID))
    await refused(tokens, signed(header | {"alg": algorithm}, claims, key=secret(), algorithm=algorithm))


async def test_another_key_is_refused(tokens: JwtAccessTokens) -> None:
    header, claims = parts(tokens.signed(CLAIMS, key=KID))
    for key in (bytes(32), KID.bytes * 2, str(KID).encode(), secret(IDS.new())):
        await refused(tokens, signed(header, claims, key=key))


async def test_a_token_of_another_installation_is_refused(record: Kept, tokens: JwtAccessTokens) -> None:
    other = JwtAccessTokens(HmacKeyedHash(Secret(bytes(KEY_LENGTH))), record)
    await refused(tokens, other.signed(CLAIMS, key=KID))


async def test_a_changed_claim_is_refused(tokens: JwtAccessTokens) -> None:
    head, body, signature = tokens.signed(CLAIMS, key=KID).split(".")
    claims = _decoded(body)
    for name, value in {"sub": str(UUID(int=3)), "sid": str(UUID(int=3)), "exp": claims["exp"] + 9999, "a": 1}.items():
        await refused(tokens, f"{head}.{_encoded(claims | {name: value})}.{signature}")


async def test_every_changed_character_is_refused(tokens: JwtAccessTokens) -> None:
    token = tokens.signed(CLAIMS, key=KID)
    for place in range(len(token) - 1):  # of the last one some bits say nothing
        other = "A" if token[place] != "A" else "B"
        await refused(tokens, token[:place] + other + token[place + 1 :])


@pytest.mark.parametrize("missing", ["iss", "aud", "sub", "sid", "iat", "exp", "jti"])
async def test_a_claim_that_is_missing_is_refused(tokens: JwtAccessTokens, missing: str) -> None:
    header, claims = parts(tokens.signed(CLAIMS, key=KID))
    del claims[missing]
    await refused(tokens, signed(header, claims, key=secret()))


@pytest.mark.parametrize(
    "wrong",
    [
        {"iss": "somebody"},
        {"aud": "another"},
        {"sub": "admin"},
        {"sub": 1},
        {"sid": None},
        {"exp": "never"},
        {"exp": 10**30},
        {"iat": None},
    ],
)
async def test_a_claim_that_is_wrong_is_refused(tokens: JwtAccessTokens, wrong: dict[str, object]) -> None:
    header, claims = parts(tokens.signed(CLAIMS, key=KID))
    await refused(tokens, signed(header, claims | wrong, key=secret()))


@pytest.mark.parametrize("wrong", [{"typ": "JWT"}, {"kid": None}, {"kid": "../../dev/null"}, {"kid": "' OR 1=1 --"}])
async def test_a_header_that_is_wrong_is_refused(tokens: JwtAccessTokens, wrong: dict[str, object]) -> None:
    header, claims = parts(tokens.signed(CLAIMS, key=KID))
    body = _encoded(header | wrong) + "." + _encoded(claims)
    signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(body.encode(), secret())
    await refused(tokens, body + "." + base64.urlsafe_b64encode(signature).decode().rstrip("="))


@pytest.mark.parametrize(
    "token", ["", ".", "..", "a.b.c", "fp_abc", "e30.e30.", "\x00", "\u00e9.\u00e9.\u00e9", "." * 5000, "A" * 100_000]
)
async def test_what_is_no_token_is_refused(tokens: JwtAccessTokens, token: str) -> None:
    await refused(tokens, token)


async def test_a_key_that_nobody_began_is_refused_though_it_could_be_computed(tokens: JwtAccessTokens) -> None:
    await refused(tokens, tokens.signed(CLAIMS, key=SigningKeyId(IDS.new())))


async def test_a_key_that_was_begun_elsewhere_is_known_at_once(record: Kept, tokens: JwtAccessTokens) -> None:
    await tokens.read(tokens.signed(CLAIMS, key=KID), now=NOW)
    new = SigningKeyId(IDS.new())
    record.keys.append(SigningKey(id=new, created_at=NOW))
    assert await tokens.read(tokens.signed(CLAIMS, key=new), now=NOW) == CLAIMS
    assert record.asked == 2


async def test_an_old_key_is_good_until_it_retires(record: Kept, tokens: JwtAccessTokens) -> None:
    record.keys = [SigningKey(id=KID, created_at=NOW, retires_at=NOW + timedelta(minutes=10))]
    token = tokens.signed(CLAIMS, key=KID)
    assert await tokens.read(token, now=NOW + timedelta(minutes=9)) == CLAIMS
    await refused(tokens, token, NOW + timedelta(minutes=10))


async def test_forged_tokens_cost_no_look_at_the_record(record: Kept, tokens: JwtAccessTokens) -> None:
    header, claims = parts(tokens.signed(CLAIMS, key=KID))
    for _ in range(20):
        await refused(tokens, signed(header | {"kid": str(IDS.new())}, claims, key=bytes(32)))
    assert record.asked == 0


async def test_unknown_keys_cost_one_look_a_second_however_many_ask(record: Kept, tokens: JwtAccessTokens) -> None:
    await tokens.read(tokens.signed(CLAIMS, key=KID), now=NOW)
    unknown = [tokens.signed(CLAIMS, key=SigningKeyId(IDS.new())) for _ in range(20)]
    begun = time.monotonic()
    await asyncio.gather(*(refused(tokens, token) for token in unknown))
    assert record.asked == 2
    assert time.monotonic() - begun < 5


def _decoded(part: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


def _encoded(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")
