from alembic import context

from adapters.persistence.tables import METADATA

# The connection comes from `adapters.persistence.schema`, which also sees to it that nobody else migrates meanwhile.
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    compare_server_default=True,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
