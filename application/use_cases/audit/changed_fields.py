"""What was changed, for the audit log: which fields, never what stands in them."""


def changed_fields(before: object, after: object, *names: str) -> list[str]:
    """Return those of the fields that are not the same any more."""
    return [name for name in names if getattr(before, name) != getattr(after, name)]
