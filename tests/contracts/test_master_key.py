import pytest

from adapters.security.master_key import LocalMasterKey
from adapters.security.secret import KEY_LENGTH, Secret
from application.conformance.master_key import CONTEXT, MasterKeyContract
from application.ports.master_key import MasterKey

SECRET = bytes(range(KEY_LENGTH))
WRAPPED = (
    "01af7b5bf0bf110798aa40f4fab78f2fdff9b40c7238a64e7b4e5ea70cfa"
    "625e8c4158607c593c79641f6ec86fc86a85f1fadfcd2815208c5e3381eb84"
)


class TestLocalMasterKey(MasterKeyContract):
    @pytest.fixture
    def key(self) -> MasterKey:
        return LocalMasterKey(Secret(SECRET))

    @pytest.fixture
    def reopened(self) -> MasterKey:
        return LocalMasterKey(Secret(SECRET))

    @pytest.fixture
    def another(self) -> MasterKey:
        return LocalMasterKey(Secret(bytes(KEY_LENGTH)))


class Careless(MasterKey):
    """Binds to nothing and hides nothing."""

    @property
    def fingerprint(self) -> bytes:
        return b"one for all"

    async def wrap(self, secret: bytes, *, context: bytes) -> bytes:
        return context[:0] + secret

    async def unwrap(self, wrapped: bytes, *, context: bytes) -> bytes:
        return context[:0] + wrapped


async def test_the_contract_finds_what_is_wrong() -> None:
    kit, careless = MasterKeyContract(), Careless()
    await kit.test_what_was_wrapped_unwraps(careless, careless)
    with pytest.raises(AssertionError):
        await kit.test_the_secret_does_not_show(careless)
    for promise in (
        kit.test_another_context_is_refused,
        kit.test_a_changed_byte_is_refused,
        kit.test_a_part_is_refused,
    ):
        with pytest.raises(pytest.fail.Exception):
            await promise(careless)
    with pytest.raises(pytest.fail.Exception):
        await kit.test_another_master_key_refuses(careless, Careless())
    with pytest.raises(AssertionError):
        kit.test_the_fingerprint_tells_master_keys_apart(careless, careless, Careless())


async def test_what_was_wrapped_once_opens_for_good() -> None:
    # Written down when the format was laid down: what an installation keeps has to open in every later version.
    wrapped = bytes.fromhex(WRAPPED)
    assert await LocalMasterKey(Secret(SECRET)).unwrap(wrapped, context=CONTEXT) == bytes(range(32, 64))
