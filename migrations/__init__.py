"""The database's schema, step by step; `adapters.persistence.schema` runs them."""
