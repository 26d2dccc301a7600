"""Some of a client's tools, as an agent's tools."""

from collections.abc import Mapping, Sequence
from typing import Any

from thinkimg.client.tool_client import ToolClient
from thinkimg.errors import ModelError, UserError
from thinkimg.image import Image
from thinkimg.tools.tool import ToolSchema, normalise_name


class OfferedTools:
    """Args:
    client: connected.
    names: of the tools that are offered, in any spelling.

    Raises:
        UserError: no server has one of them.
    """

    def __init__(self, client: ToolClient, names: Sequence[str]) -> None:
        known = {normalise_name(name): name for name in client.schemas}
        if missing := [name for name in names if normalise_name(name) not in known]:
            raise UserError(f"no server has {missing[0]}; there are {', '.join(known.values())}", "--tool")
        chosen = [known[normalise_name(name)] for name in names]
        self.schemas: Mapping[str, ToolSchema] = {name: client.schemas[name] for name in chosen}
        self._known = {normalise_name(name) for name in chosen}
        self._client = client

    async def call(self, name: str, arguments: dict[str, Any], images: Mapping[str, Image]) -> Any:
        """See `ToolClient.call`. A tool that is not offered is the model's error."""
        if normalise_name(name) not in self._known:
            raise ModelError(f"There is no tool {name}; there are {', '.join(self.schemas)}.", kind="unknown_tool")
        return await self._client.call(name, arguments, images)
