"""What the API pages say beyond what the signatures tell."""

from dataclasses import dataclass
from typing import Any

import msgspec
from litestar.openapi.spec import OpenAPIMediaType, Operation, RequestBody, Schema


def takes(kind: type[msgspec.Struct]) -> type[Operation]:
    """Return an operation whose request body is `kind`, as JSON or as a multipart form, in the API pages.

    Both arrive in one handler, which Litestar's own annotations cannot say.
    """
    (schema,), components = msgspec.json.schema_components([kind], ref_template="#/{name}")
    as_json = _inlined(schema, components)

    @dataclass
    class TakesBody(Operation):
        def __post_init__(self) -> None:
            self.request_body = RequestBody(
                required=True,
                content={
                    "application/json": OpenAPIMediaType(schema=_schema(as_json, binary=False)),
                    "multipart/form-data": OpenAPIMediaType(schema=_schema(as_json, binary=True)),
                },
            )

    return TakesBody


def _inlined(schema: Any, components: dict[str, Any]) -> Any:  # noqa: ANN401 - JSON Schema is a tree of anything
    """Put what `$ref` names in its place: our bodies are small and nowhere recursive."""
    if isinstance(schema, list):
        return [_inlined(one, components) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(components[schema["$ref"].removeprefix("#/")], components)
    return {key: _inlined(value, components) for key, value in schema.items()}


def _schema(tree: dict[str, Any], *, binary: bool, name: str = "") -> Schema:
    known: dict[str, Any] = {}
    for key, value in tree.items():
        if key == "properties":
            known["properties"] = {field: _schema(one, binary=binary, name=field) for field, one in value.items()}
        elif key == "items":
            known["items"] = _schema(value, binary=binary, name=name)
        elif key == "anyOf":
            known["any_of"] = [_schema(one, binary=binary, name=name) for one in value]
        elif key == "additionalProperties":
            known["additional_properties"] = (
                value if isinstance(value, bool) else _schema(value, binary=binary, name=name)
            )
        elif key == "contentEncoding":
            known["format" if binary else "content_encoding"] = "binary" if binary else value
        elif key == "default":
            known["default"] = value
        elif key in {"type", "title", "description", "required", "enum", "format"}:
            known[key] = value
    return Schema(**known)
