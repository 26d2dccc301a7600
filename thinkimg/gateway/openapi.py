"""The description of the API that `/openapi.json` serves and `/docs` shows: its paths, each tool with its arguments."""

from collections.abc import Iterable, Mapping
from typing import Any

from thinkimg import __version__
from thinkimg.gateway.openai import ChatRequest
from thinkimg.tools.tool import ToolSchema

_IMAGES = {
    "type": "object",
    "description": "handle -> picture; the arguments name pictures by these handles",
    "additionalProperties": {
        "oneOf": [
            {"type": "string", "format": "byte", "description": "the picture in base64, or as a data URL"},
            {
                "type": "object",
                "properties": {
                    "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
                    "data": {"type": "string", "format": "byte", "description": "not needed if the gateway holds it"},
                },
            },
        ]
    },
}
_PROBLEM = {
    "type": "object",
    "description": "RFC 9457; `type` tells whose fault it is",
    "properties": {name: {"type": "string"} for name in ("type", "title", "detail", "kind")}
    | {"status": {"type": "integer"}},
}


def document(schemas: Iterable[ToolSchema], secured: bool) -> dict[str, Any]:
    """OpenAPI 3.1.

    Args:
        secured: calls need a key.
    """
    paths: dict[str, Any] = {
        "/v1/tools": {"get": _operation("The tools and their schemas", "tools", "Version and schemas")},
        "/v1/batch": {"post": _operation("Several calls", "tools", "A result or a problem for each", _BATCH)},
        "/v1/images/{sha256}": _image_path(),
        "/v1/chat/completions": {"post": _operation("Ask a model that uses the tools", "chat", "The answer", _chat())},
        "/v1/models": {"get": _operation("The models", "chat", "Their names")},
        "/mcp": {"post": _operation("Model Context Protocol, streamable HTTP", "mcp", "A message", {"type": "object"})},
        "/openthinkimg/list_models": {
            "post": _operation("OpenThinkIMG's controller", "openthinkimg", "Names of tools")
        },
        "/livez": {"get": _operation("The process lives", "operations", "`alive`", open_=True)},
        "/readyz": {"get": _operation("The tools are known, and there is room", "operations", "`ready`", open_=True)},
        "/metrics": {"get": _operation("Prometheus metrics", "operations", "Text")},
    }
    for schema in schemas:
        paths[f"/v1/tools/{schema.name}"] = {"post": _tool(schema)}
    description: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "ThinkIMG gateway", "version": __version__},
        "paths": paths,
        "components": {"schemas": {"Problem": _PROBLEM}},
    }
    if secured:
        description["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        description["security"] = [{"key": []}]
    return description


def _tool(schema: ToolSchema) -> dict[str, Any]:
    body = {
        "type": "object",
        "required": ["arguments"],
        "properties": {"arguments": dict(schema.parameters), "images": _IMAGES},
    }
    return _operation(schema.description, "tools", "Text, data, pictures", body)


def _operation(
    summary: str, tag: str, answer: str, body: Mapping[str, Any] | None = None, open_: bool = False
) -> dict[str, Any]:
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    operation: dict[str, Any] = {
        "summary": summary,
        "tags": [tag],
        "responses": {"200": {"description": answer}, "default": {"description": "A problem", "content": problem}},
    }
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    if open_:
        operation["security"] = []
    return operation


def _image_path() -> dict[str, Any]:
    put = _operation("Put a picture, to name it by its hash from then on", "tools", "Never")
    put["responses"]["204"] = {"description": "It is held"}
    del put["responses"]["200"]
    put["requestBody"] = {"required": True, "content": {"application/octet-stream": {}}}
    parameter = {"name": "sha256", "in": "path", "required": True, "schema": {"type": "string"}}
    get = _operation("A picture that you sent, or that a tool made for you, while it is held", "tools", "The picture")
    return {"parameters": [parameter], "put": put, "get": get, "head": _operation("Is it held?", "tools", "Yes")}


def _chat() -> dict[str, Any]:
    """Pydantic's own, with its definitions in place."""
    schema = ChatRequest.model_json_schema(ref_template="{model}")
    definitions = schema.pop("$defs", {})

    def resolved(value: Any) -> Any:
        if isinstance(value, dict):
            if "$ref" in value:
                return resolved(definitions[value["$ref"]])
            return {name: resolved(item) for name, item in value.items()}
        return [resolved(item) for item in value] if isinstance(value, list) else value

    return dict(resolved(schema))


_BATCH = {
    "type": "object",
    "required": ["calls"],
    "properties": {
        "calls": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["tool"],
                "properties": {"tool": {"type": "string"}, "arguments": {"type": "object"}, "images": _IMAGES},
            },
        }
    },
}
