"""For `thinkimg tools`: list tools, show a schema, call one on files, here or at a server."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from thinkimg.client import ToolClient
from thinkimg.client.discovery import keyed
from thinkimg.errors import ModelError, UserError
from thinkimg.image import Image, ImageDecodeError, handle
from thinkimg.pairs import read_pairs
from thinkimg.tools.drawing import draw_result
from thinkimg.tools.registry import find_tool, installed_tools, load_tool
from thinkimg.tools.tool import ToolResult, ToolSchema, normalise_name


@dataclass(frozen=True)
class Call:
    """One call as it is written on the command line.

    Attributes:
        arguments: `KEY=VALUE`, values as in a manifest.
        images: files, called img_1, img_2 … in the arguments.
        options: `KEY=VALUE` of the backend.
        server: address to call; None: this process.
    """

    name: str
    arguments: Sequence[str] = ()
    images: Sequence[Path] = ()
    backend: str | None = None
    options: Sequence[str] = ()
    server: str | None = None


def listing(server: str | None = None) -> list[dict[str, Any]]:
    """Names, backends (of those here) and what they do. Raises `UserError` for a package that cannot be imported."""
    if server is not None:
        return [{"name": one.name, "description": one.description} for one in _schemas_at(server).values()]
    return [
        {"name": one.name, "backends": list(one.backends), "description": one.schema.description}
        for one in installed_tools().values()
    ]


def print_listing(listed: Sequence[Mapping[str, Any]], console: Console) -> None:
    """A line per tool."""
    for one in listed:
        backends = f" ({escape(', '.join(one['backends']))})" if "backends" in one else ""
        console.print(f"[bold]{escape(one['name'])}[/]{backends}: {escape(one['description'])}")


def schema_of(name: str, server: str | None = None) -> ToolSchema:
    """Raises `UserError`: there is no such tool."""
    if server is None:
        return _declared(name)
    schemas = _schemas_at(server)
    for schema in schemas.values():
        if normalise_name(name) in map(normalise_name, (schema.name, *schema.aliases)):
            return schema
    raise UserError(f"{server} has no tool {name!r}; it has {', '.join(schemas)}", "NAME")


def run(call: Call, out: Path | None = None) -> ToolResult:
    """Call the tool. With `out`, its picture, or what it found drawn on the first image, is written there.

    Raises:
        UserError: unknown tool, arguments that it refuses, files that cannot be read or written.
        InfrastructureError: the server does not answer.
    """
    images = {handle(number + 1): _read(path) for number, path in enumerate(call.images)}
    result = _called(call, images)
    if out is not None:
        _write(out, result, images)
    return result


def _called(call: Call, images: Mapping[str, Image]) -> ToolResult:
    schema = schema_of(call.name, call.server)
    arguments = read_pairs(call.arguments, "ARGUMENTS")
    for name, known in zip(schema.image_parameters, images, strict=False):  # what is not said follows the files' order
        if name in schema.parameters["required"]:
            arguments.setdefault(name, known)
    try:
        if call.server is not None:
            return asyncio.run(_call_at(call.server, schema.name, arguments, images))
        tool = load_tool(call.name, call.backend, read_pairs(call.options, "--option"))
        return tool.run(arguments, images)
    except ModelError as error:  # here a person has written the call
        raise UserError(str(error), "ARGUMENTS") from error


async def _call_at(server: str, name: str, arguments: dict[str, Any], images: Mapping[str, Image]) -> ToolResult:
    async with ToolClient([server], keyed([server])) as client:
        return (await client.call(name, arguments, images)).result


def _schemas_at(server: str) -> dict[str, ToolSchema]:
    async def read() -> dict[str, ToolSchema]:
        async with ToolClient([server], keyed([server]), timeout_seconds=10) as client:
            return dict(client.schemas)

    return asyncio.run(read())


def _declared(name: str) -> ToolSchema:
    try:
        return find_tool(name).schema
    except ModelError as error:
        raise UserError(str(error), "NAME") from error


def _read(path: Path) -> Image:
    try:
        return Image.from_file(path)
    except (OSError, ImageDecodeError) as error:
        raise UserError(f"the picture cannot be read: {error}", str(path)) from error


def _write(out: Path, result: ToolResult, images: Mapping[str, Image]) -> None:
    """The tool's own pictures as they are (OUT, OUT-2 …), else its findings drawn."""
    pictures = list(result.images) or [draw_result(image, result) for image in list(images.values())[:1]]
    if not pictures:
        raise UserError("the result has no picture, and there is none to draw on", "--out")
    for number, picture in enumerate(pictures):
        path = out if number == 0 else out.with_name(f"{out.stem}-{number + 1}{out.suffix}")
        try:
            if path.suffix.lower() == picture.suffix:
                path.write_bytes(picture.data)
            else:
                picture.pixels().save(path)
        except (OSError, ValueError) as error:
            raise UserError(f"it cannot be written: {error}", str(path)) from error
