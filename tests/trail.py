from adapters.persistence.audit_trail import SqlAuditTrail
from adapters.persistence.connection import SqlConnection
from adapters.security.cipher import AesGcmCipher
from adapters.security.keyed_hash import HmacKeyedHash
from adapters.security.secret import Secret
from adapters.security.wrapping_keys import WrappingKeys
from adapters.system.clock import SystemClock

SECRET = Secret(bytes(range(32)))
KEYED_HASH = HmacKeyedHash(SECRET)
CIPHER = AesGcmCipher(WrappingKeys({0: SECRET.derive("wrap")}))


def trail(connection: SqlConnection) -> SqlAuditTrail:
    """An audit trail under a key that everybody knows, for transactions that are not made by the container."""
    return SqlAuditTrail(connection, KEYED_HASH, SystemClock())
