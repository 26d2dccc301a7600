"""What the loop needs of tools, and what can be laid around them: none, some of them, so many calls at a time."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from thinkimg.errors import ModelError, UserError
from thinkimg.image import Image
from thinkimg.tools.tool import ToolResult, ToolSchema, normalise_name


class Outcome(Protocol):
    """What a call gave: see `thinkimg.client`."""

    @property
    def result(self) -> ToolResult: ...
    @property
    def cached(self) -> bool: ...


class Caller(Protocol):
    """What calls a tool by its name: a client of tool servers, or the gateway for one of its callers."""

    async def call(self, name: str, arguments: dict[str, Any], images: Mapping[str, Image]) -> Outcome:
        """Raises `ModelError` for what the model did wrong, `InfrastructureError` for what it did not."""
        ...


class Tools(Caller, Protocol):
    """What the loop needs of a tool client."""

    @property
    def schemas(self) -> Mapping[str, ToolSchema]: ...


class NoTools:
    """For text-only runs: nothing is offered, and whatever is called does not exist."""

    schemas: Mapping[str, ToolSchema] = {}

    async def call(self, name: str, arguments: dict[str, Any], images: Mapping[str, Image]) -> Outcome:
        raise ModelError(f"There is no tool {name}: this task has no tools. Give your answer.", kind="unknown_tool")


class OfferedTools:
    """Some of a caller's tools: the others do not exist for the model.

    Args:
        schemas: of those that are offered, by name; they are called by name or alias, in any spelling.
    """

    def __init__(self, caller: Caller, schemas: Mapping[str, ToolSchema]) -> None:
        self.schemas = schemas
        self._caller = caller
        self._spellings = {
            normalise_name(name) for schema in schemas.values() for name in (schema.name, *schema.aliases)
        }

    async def call(self, name: str, arguments: dict[str, Any], images: Mapping[str, Image]) -> Outcome:
        if normalise_name(name) not in self._spellings:
            known = ", ".join(self.schemas) or "none"
            raise ModelError(f"There is no tool {name[:80]!r}. The tools are {known}.", kind="unknown_tool")
        return await self._caller.call(name, arguments, images)


def only(tools: Tools, names: Iterable[str]) -> OfferedTools:
    """The tools of these names, in this order.

    Raises:
        UserError: there is none of that name.
    """
    known = {normalise_name(name): name for name in tools.schemas}
    chosen: dict[str, ToolSchema] = {}
    for name in names:
        if normalise_name(name) not in known:
            raise UserError(f"no server has {name}; there are {', '.join(known.values())}", "--tool")
        spelled = known[normalise_name(name)]
        chosen[spelled] = tools.schemas[spelled]
    return OfferedTools(tools, chosen)


class LimitedTools:
    """Tools of which at most `limit` calls are in flight; a call's deadline begins when its turn comes."""

    def __init__(self, tools: Tools, limit: int) -> None:
        self._tools = tools
        self._slots = asyncio.Semaphore(limit)

    @property
    def schemas(self) -> Mapping[str, ToolSchema]:
        return self._tools.schemas

    async def call(self, name: str, arguments: dict[str, Any], images: Mapping[str, Image]) -> Outcome:
        async with self._slots:
            return await self._tools.call(name, arguments, images)
