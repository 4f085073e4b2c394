from adapters.persistence.audit_trail import SqlAuditTrail
from adapters.persistence.connection import SqlConnection
from adapters.security.keyed_hash import HmacKeyedHash
from adapters.security.master_key import MasterKey
from adapters.system.clock import SystemClock

KEYED_HASH = HmacKeyedHash(MasterKey(bytes(range(32))))


def trail(connection: SqlConnection) -> SqlAuditTrail:
    """An audit trail under a key that everybody knows, for transactions that are not made by the container."""
    return SqlAuditTrail(connection, KEYED_HASH, SystemClock())
