from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

# Every key begins with the workspace and every foreign key carries it, so that no row can point across one.
# Names follow one rule, since `errors.py` tells by them which fact a violated constraint states.
METADATA = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

_TIME = DateTime(timezone=True)

INSTALLATION = Table(
    "installation",
    METADATA,
    Column("only", Boolean, primary_key=True, server_default=text("true")),
    Column("master_key", LargeBinary, nullable=False),
    CheckConstraint('"only"', name="one_row"),
)

# The secrets below the master key, each wrapped by it; by two of them while the installation changes over to another.
KEY_RING = Table(
    "key_ring",
    METADATA,
    Column("purpose", Text, primary_key=True),
    Column("number", Integer, primary_key=True),
    # The fingerprint of the master key that it is wrapped by.
    Column("master", LargeBinary, primary_key=True),
    Column("wrapped", LargeBinary, nullable=False),
    Column("created_at", _TIME, nullable=False),
)

INDEX_STATE = Table(
    "index_state",
    METADATA,
    Column("only", Boolean, primary_key=True, server_default=text("true")),
    Column("serving", Text, nullable=False),
    Column("beside", Text),
    Column("filled", Boolean, nullable=False),
    Column("changed_at", _TIME, nullable=False),
    # How far the filling of the one beside came.
    Column("mark_gallery", Uuid),
    Column("mark_reference", Uuid),
    Column("mark_references", BigInteger),
    CheckConstraint('"only"', name="one_row"),
    CheckConstraint("serving <> beside", name="two_indexes"),
    CheckConstraint("num_nulls(mark_gallery, mark_reference, mark_references) IN (0, 3)", name="whole_mark"),
)

WORKSPACES = Table(
    "workspaces",
    METADATA,
    Column("id", Uuid, primary_key=True),
    Column("name", Text, nullable=False),
    Column("created_at", _TIME, nullable=False),
    Column("version", Integer, nullable=False, server_default=text("1")),
    UniqueConstraint("name"),
)

USERS = Table(
    "users",
    METADATA,
    Column("id", Uuid, primary_key=True),
    # Keyed hash: what an account is found by, and what keeps addresses unique.
    Column("email_digest", LargeBinary, nullable=False),
    # Email address and name, sealed under a data key of the user's own.
    Column("profile", LargeBinary, nullable=False),
    Column("data_key_id", Uuid, nullable=False),
    Column("wrapped", LargeBinary, nullable=False),
    Column("password", Text),
    Column("administrator", Boolean, nullable=False),
    Column("created_at", _TIME, nullable=False),
    Column("updated_at", _TIME, nullable=False),
    Column("deleted_at", _TIME),
    Column("last_login_at", _TIME),
    Column("version", Integer, nullable=False),
    UniqueConstraint("email_digest"),
)

MEMBERSHIPS = Table(
    "memberships",
    METADATA,
    Column("workspace_id", Uuid, ForeignKey("workspaces.id", ondelete="CASCADE"), primary_key=True),
    Column("user_id", Uuid, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column("role", Text, nullable=False),
    Column("created_at", _TIME, nullable=False),
    Index(None, "user_id"),
)

SESSIONS = Table(
    "sessions",
    METADATA,
    Column("id", Uuid, primary_key=True),
    Column("user_id", Uuid, ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    # What the client called itself, sealed under the user's key.
    Column("agent", LargeBinary, nullable=False),
    Column("created_at", _TIME, nullable=False),
    Column("last_used_at", _TIME, nullable=False),
    Column("expires_at", _TIME, nullable=False),
    Column("ended_at", _TIME),
    Index(None, "user_id"),
    Index(None, "expires_at"),
)

REFRESH_TOKENS = Table(
    "refresh_tokens",
    METADATA,
    Column("digest", LargeBinary, primary_key=True),
    Column("session_id", Uuid, ForeignKey("sessions.id", ondelete="CASCADE"), nullable=False),
    Column("created_at", _TIME, nullable=False),
    # One that comes a second time ends its session.
    Column("used_at", _TIME),
    Index(None, "session_id"),
)

ONE_TIME_LINKS = Table(
    "one_time_links",
    METADATA,
    Column("digest", LargeBinary, primary_key=True),
    Column("purpose", Text, nullable=False),
    # Whose password it sets; null for an invitation.
    Column("user_id", Uuid, ForeignKey("users.id", ondelete="CASCADE")),
    # Where an invitation leads, and as what; null: it lets somebody register, and no more.
    Column("workspace_id", Uuid, ForeignKey("workspaces.id", ondelete="CASCADE")),
    Column("role", Text),
    # The one address that may use an invitation; null: whoever has the link.
    Column("email_digest", LargeBinary),
    Column("created_at", _TIME, nullable=False),
    Column("expires_at", _TIME, nullable=False),
    Column("used_at", _TIME),
    # What it is listed and withdrawn by: a digest is for nobody to see.
    Column("id", Uuid, nullable=False),
    # Whose role an invitation hangs on, and whose administering a link for a password; null: the command line's, which
    # hangs on nobody.
    Column("made_by", Uuid, ForeignKey("users.id", ondelete="CASCADE")),
    UniqueConstraint("id"),
    Index(None, "made_by", postgresql_where=text("made_by IS NOT NULL")),
    Index(None, "expires_at"),
    Index(None, "user_id", postgresql_where=text("user_id IS NOT NULL")),
    Index(None, "workspace_id", postgresql_where=text("workspace_id IS NOT NULL")),
)

LOGIN_FAILURES = Table(
    "login_failures",
    METADATA,
    # Of any address that was tried: whether it is an account's must not show.
    Column("email_digest", LargeBinary, primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("last_at", _TIME, nullable=False),
    Column("locked_until", _TIME, nullable=False),
    Index(None, "last_at"),
)

SIGNING_KEYS = Table(
    "signing_keys",
    METADATA,
    # The key itself follows from its id and the installation's hashing secret: none of it is kept.
    Column("id", Uuid, primary_key=True),
    Column("created_at", _TIME, nullable=False),
    # When tokens that it signed are not taken any more; null for the one in use.
    Column("retires_at", _TIME),
)

GALLERIES = Table(
    "galleries",
    METADATA,
    Column("workspace_id", Uuid, ForeignKey("workspaces.id", ondelete="CASCADE"), primary_key=True),
    Column("id", Uuid, primary_key=True),
    Column("name", Text, nullable=False),
    Column("space", Text, nullable=False),
    Column("policy", JSONB, nullable=False),
    Column("created_at", _TIME, nullable=False),
    Column("updated_at", _TIME, nullable=False),
    Column("version", Integer, nullable=False),
    UniqueConstraint("workspace_id", "name"),
)

PEOPLE = Table(
    "people",
    METADATA,
    Column("workspace_id", Uuid, primary_key=True),
    Column("id", Uuid, primary_key=True),
    Column("gallery_id", Uuid, nullable=False),
    # Sealed with the person's own key, and the keyed hash by which it is looked up and kept unique.
    Column("external_id", LargeBinary),
    Column("external_id_digest", LargeBinary),
    Column("metadata", LargeBinary, nullable=False),
    # One of their data keys. No foreign key: those point here, and go with the person.
    Column("data_key_id", Uuid, nullable=False),
    Column("created_at", _TIME, nullable=False),
    Column("updated_at", _TIME, nullable=False),
    Column("version", Integer, nullable=False),
    Column("merged_into", Uuid),
    Column("retention_days", Integer),
    Column("consent_expires_at", _TIME),
    UniqueConstraint("workspace_id", "gallery_id", "id"),
    UniqueConstraint("workspace_id", "gallery_id", "external_id_digest"),
    CheckConstraint("num_nulls(external_id, external_id_digest) IN (0, 2)", name="external_id_and_digest"),
    # Not cascading: a gallery with people in it stays.
    ForeignKeyConstraint(["workspace_id", "gallery_id"], ["galleries.workspace_id", "galleries.id"]),
    # Whoever was merged into a person goes with them.
    ForeignKeyConstraint(
        ["workspace_id", "gallery_id", "merged_into"],
        ["people.workspace_id", "people.gallery_id", "people.id"],
        ondelete="CASCADE",
    ),
    Index(None, "workspace_id", "gallery_id", "merged_into", postgresql_where=text("merged_into IS NOT NULL")),
)

DATA_KEYS = Table(
    "data_keys",
    METADATA,
    Column("workspace_id", Uuid, primary_key=True),
    Column("person_id", Uuid, primary_key=True),
    Column("id", Uuid, primary_key=True),
    Column("wrapped", LargeBinary, nullable=False),
    ForeignKeyConstraint(["workspace_id", "person_id"], ["people.workspace_id", "people.id"], ondelete="CASCADE"),
)

REFERENCES = Table(
    "references",
    METADATA,
    Column("workspace_id", Uuid, primary_key=True),
    Column("id", Uuid, primary_key=True),
    Column("gallery_id", Uuid, nullable=False),
    Column("person_id", Uuid, nullable=False),
    # The person it was enrolled for, whatever merges came after: the owner of its data key.
    Column("enrolled_for", Uuid, nullable=False),
    Column("data_key_id", Uuid, nullable=False),
    Column("space", Text, nullable=False),
    Column("template", LargeBinary, nullable=False),
    Column("quality_score", Double, nullable=False),
    Column("quality_reasons", ARRAY(Text), nullable=False),
    Column("box", ARRAY(Double), nullable=False),
    # Sealed as the template is.
    Column("filename", LargeBinary),
    Column("image_key", Text),
    Column("image_type", Text),
    Column("searchable", Boolean, nullable=False),
    Column("created_at", _TIME, nullable=False),
    ForeignKeyConstraint(
        ["workspace_id", "gallery_id", "person_id"],
        ["people.workspace_id", "people.gallery_id", "people.id"],
        ondelete="CASCADE",
    ),
    ForeignKeyConstraint(
        ["workspace_id", "enrolled_for", "data_key_id"],
        ["data_keys.workspace_id", "data_keys.person_id", "data_keys.id"],
        ondelete="CASCADE",
    ),
    Index(None, "workspace_id", "gallery_id", "id"),
    Index(None, "workspace_id", "person_id", "id"),
    Index(None, "workspace_id", "enrolled_for", "data_key_id"),
    # Room for the one update that every reference sees (searchable), and templates of up to 1,900 dimensions beside
    # their row: they are ciphertext, so compression is in vain, and each verification reads them.
    postgresql_with={"fillfactor": 85, "toast_tuple_target": 8160},
)

GALLERY_MOVES = Table(
    "gallery_moves",
    METADATA,
    Column("workspace_id", Uuid, primary_key=True),
    Column("gallery_id", Uuid, primary_key=True),
    Column("source", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("job_id", Uuid, nullable=False),
    Column("report", JSONB(none_as_null=True)),
    Column("switched_at", _TIME),
    Column("asked_at", _TIME, nullable=False),
    ForeignKeyConstraint(
        ["workspace_id", "gallery_id"], ["galleries.workspace_id", "galleries.id"], ondelete="CASCADE"
    ),
)

SPARE_TEMPLATES = Table(
    "spare_templates",
    METADATA,
    Column("workspace_id", Uuid, primary_key=True),
    Column("reference_id", Uuid, primary_key=True),
    Column("space", Text, primary_key=True),
    Column("gallery_id", Uuid, nullable=False),
    Column("template", LargeBinary),
    # Why there is no template.
    Column("refusal", Text),
    ForeignKeyConstraint(
        ["workspace_id", "reference_id"], ["references.workspace_id", "references.id"], ondelete="CASCADE"
    ),
    CheckConstraint("(template IS NULL) <> (refusal IS NULL)", name="template_or_refusal"),
    Index(None, "workspace_id", "gallery_id", "reference_id"),
    Index(None, "workspace_id", "gallery_id", "space", "reference_id", postgresql_where=text("refusal IS NOT NULL")),
    postgresql_with={"toast_tuple_target": 8160},
)

# Of galleries whose vectors in the index were given another secret rotation than the first.
GALLERY_ROTATIONS = Table(
    "gallery_rotations",
    METADATA,
    Column("workspace_id", Uuid, primary_key=True),
    Column("gallery_id", Uuid, primary_key=True),
    Column("writes", Integer, nullable=False),
    Column("also", Integer),
    ForeignKeyConstraint(
        ["workspace_id", "gallery_id"], ["galleries.workspace_id", "galleries.id"], ondelete="CASCADE"
    ),
)

RECONCILIATIONS = Table(
    "reconciliations",
    METADATA,
    Column("workspace_id", Uuid, ForeignKey("workspaces.id", ondelete="CASCADE"), primary_key=True),
    # No foreign key: what is gone from the record must still be taken from the index.
    Column("reference_id", Uuid, primary_key=True),
    Column("space", Text, nullable=False),
    # Those of galleries that moved when it was noted.
    Column("further_spaces", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    Column("due_at", _TIME, nullable=False),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("error", Text),
    Index(None, "due_at"),
)

API_KEYS = Table(
    "api_keys",
    METADATA,
    Column("workspace_id", Uuid, ForeignKey("workspaces.id", ondelete="CASCADE"), primary_key=True),
    Column("id", Uuid, primary_key=True),
    Column("name", Text, nullable=False),
    Column("prefix", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("scopes", ARRAY(Text), nullable=False),
    # The only ones that it is for; null: all. No foreign key: one that is gone is found no more.
    Column("galleries", ARRAY(Uuid)),
    Column("created_at", _TIME, nullable=False),
    Column("created_by", Uuid),
    Column("expires_at", _TIME),
    Column("revoked_at", _TIME),
    Column("last_used_at", _TIME),
    Column("rotated_from", Uuid),
    UniqueConstraint("digest"),
)

ANSWERS = Table(
    "answers",
    METADATA,
    Column("workspace_id", Uuid, ForeignKey("workspaces.id", ondelete="CASCADE"), primary_key=True),
    # A keyed hash: clients make them up, of names perhaps.
    Column("idempotency_digest", LargeBinary, primary_key=True),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("data_key_id", Uuid, nullable=False),
    Column("wrapped", LargeBinary, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("person_id", Uuid),
    Column("expires_at", _TIME, nullable=False),
    ForeignKeyConstraint(["workspace_id", "person_id"], ["people.workspace_id", "people.id"], ondelete="CASCADE"),
    Index(None, "workspace_id", "person_id", postgresql_where=text("person_id IS NOT NULL")),
    Index(None, "expires_at"),
)

JOBS = Table(
    "jobs",
    METADATA,
    Column("workspace_id", Uuid, ForeignKey("workspaces.id", ondelete="CASCADE"), primary_key=True),
    Column("id", Uuid, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("parameters", JSONB, nullable=False),
    Column("done", BigInteger, nullable=False),
    Column("total", BigInteger),
    Column("stage", Text, nullable=False),
    Column("result", JSONB(none_as_null=True)),
    Column("attempts", Integer, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("losses", Integer, nullable=False),
    Column("failures", JSONB, nullable=False),
    Column("run", Integer, nullable=False),
    Column("held_until", _TIME),
    Column("cancel_requested", Boolean, nullable=False),
    Column("time_limit_seconds", Double, nullable=False),
    Column("created_at", _TIME, nullable=False),
    Column("due_at", _TIME, nullable=False),
    Column("started_at", _TIME),
    Column("finished_at", _TIME),
    # What opens the job's files in the blob store, as long as there may be any.
    Column("data_key_id", Uuid),
    Column("wrapped", LargeBinary),
    # What the sweep asks every few seconds.
    Index(None, "due_at", postgresql_where=text("status = 'queued'")),
    Index(None, "held_until", postgresql_where=text("status = 'running'")),
    Index(None, "finished_at", postgresql_where=text("finished_at IS NOT NULL")),
    Index(None, "data_key_id", postgresql_where=text("data_key_id IS NOT NULL")),
)

# Append-only: a trigger refuses to change, remove or empty it. No foreign key, so that nothing cascades into it.
AUDIT_ENTRIES = Table(
    "audit_entries",
    METADATA,
    Column("workspace_id", Uuid, primary_key=True),
    Column("number", BigInteger, primary_key=True),
    Column("at", _TIME, nullable=False),
    Column("actor_kind", Text, nullable=False),
    Column("actor_id", Uuid),
    Column("network", Text),
    Column("request_id", Text),
    Column("action", Text, nullable=False),
    Column("subject_id", Uuid),
    Column("gallery_id", Uuid),
    Column("outcome", Text, nullable=False),
    Column("details", JSONB, nullable=False),
    Column("mac", LargeBinary, nullable=False),
    Index(None, "workspace_id", "at"),
    Index(None, "workspace_id", "subject_id", postgresql_where=text("subject_id IS NOT NULL")),
)

AUDIT_HEADS = Table(
    "audit_heads",
    METADATA,
    Column("workspace_id", Uuid, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("mac", LargeBinary, nullable=False),
    Column("seal", LargeBinary, nullable=False),
)

# Who was erased, as keyed hashes alone: what a restored backup must forget again. No foreign key: it outlives them all.
ERASURES = Table(
    "erasures",
    METADATA,
    Column("workspace_id", Uuid, primary_key=True),
    Column("id", Uuid, primary_key=True),
    Column("erased_at", _TIME, nullable=False),
    Column("digests", ARRAY(LargeBinary), nullable=False),
    # Signed; ids and numbers. Null where it is known from the ledger beside the database alone.
    Column("receipt", JSONB(none_as_null=True)),
    Column("filed", Boolean, nullable=False),
    Index(None, "digests", postgresql_using="gin"),
    Index(None, "id", postgresql_where=text("NOT filed")),
)

# Up to when nothing in the ledger beside the database is new to it.
LEDGER_MARK = Table(
    "ledger_mark",
    METADATA,
    Column("only", Boolean, primary_key=True, server_default=text("true")),
    Column("replayed_until", _TIME, nullable=False),
    CheckConstraint('"only"', name="one_row"),
)
