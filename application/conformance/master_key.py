"""What every master key promises."""

from secrets import token_bytes

import pytest

from application.conformance.contract import Contract
from application.ports.master_key import MasterKey
from domain.errors import CannotOpen

CONTEXT = b"wrap/3"
LENGTH = 32
LONGEST_FINGERPRINT = 64


class MasterKeyContract(Contract):
    """Give `key`, `reopened` and `another`."""

    @pytest.fixture
    def key(self) -> MasterKey:
        """Return a master key."""
        raise NotImplementedError("give your contract test the fixture `key`")

    @pytest.fixture
    def reopened(self, key: MasterKey) -> MasterKey:
        """Return the same master key as a process has it that starts later."""
        raise NotImplementedError("give your contract test the fixture `reopened`")

    @pytest.fixture
    def another(self) -> MasterKey:
        """Return another master key."""
        raise NotImplementedError("give your contract test the fixture `another`")

    async def test_what_was_wrapped_unwraps(self, key: MasterKey, reopened: MasterKey) -> None:
        secret = token_bytes(LENGTH)
        wrapped = await key.wrap(secret, context=CONTEXT)
        assert await key.unwrap(wrapped, context=CONTEXT) == secret
        assert await reopened.unwrap(wrapped, context=CONTEXT) == secret

    async def test_the_secret_does_not_show(self, key: MasterKey) -> None:
        secret = token_bytes(LENGTH)
        first, second = [await key.wrap(secret, context=CONTEXT) for _ in range(2)]
        assert first != second
        assert secret not in first

    async def test_another_context_is_refused(self, key: MasterKey) -> None:
        wrapped = await key.wrap(token_bytes(LENGTH), context=CONTEXT)
        for other in (b"wrap/4", b"hash/3", b"", CONTEXT + b"\x00"):
            with pytest.raises(CannotOpen):
                await key.unwrap(wrapped, context=other)

    async def test_a_changed_byte_is_refused(self, key: MasterKey) -> None:
        wrapped = await key.wrap(token_bytes(LENGTH), context=CONTEXT)
        for place in range(len(wrapped)):
            changed = bytearray(wrapped)
            changed[place] ^= 1
            with pytest.raises(CannotOpen):
                await key.unwrap(bytes(changed), context=CONTEXT)

    async def test_a_part_is_refused(self, key: MasterKey) -> None:
        wrapped = await key.wrap(token_bytes(LENGTH), context=CONTEXT)
        for part in (b"", wrapped[:1], wrapped[:-1], wrapped[1:], wrapped + b"\x00"):
            with pytest.raises(CannotOpen):
                await key.unwrap(part, context=CONTEXT)

    async def test_another_master_key_refuses(self, key: MasterKey, another: MasterKey) -> None:
        wrapped = await key.wrap(token_bytes(LENGTH), context=CONTEXT)
        with pytest.raises(CannotOpen):
            await another.unwrap(wrapped, context=CONTEXT)

    def test_the_fingerprint_tells_master_keys_apart(
        self, key: MasterKey, reopened: MasterKey, another: MasterKey
    ) -> None:
        assert 1 <= len(key.fingerprint) <= LONGEST_FINGERPRINT
        assert key.fingerprint == reopened.fingerprint
        assert key.fingerprint != another.fingerprint
