"""What is laid around a client's tools: some of them, and so many calls at a time."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from thinkimg.agent.tools import LimitedTools, OfferedTools, only
from thinkimg.errors import ModelError, UserError
from thinkimg.tools.registry import find_tool

ALL = {name: find_tool(name).schema for name in ("OCR", "Crop", "ZoominSubplot")}


class Recorded:
    """Tools that answer with the name by which they were called."""

    schemas = ALL

    async def call(self, name: str, arguments: dict[str, Any], images: Mapping[str, Any]) -> Any:
        return name


def call(tools: OfferedTools, name: str) -> Any:
    return asyncio.run(tools.call(name, {}, {}))


def test_only_what_is_offered_can_be_called() -> None:
    tools = only(Recorded(), ["Crop"])
    assert list(tools.schemas) == ["Crop"]
    assert call(tools, "Crop") == "Crop"
    with pytest.raises(ModelError, match=r"There is no tool 'OCR'\. The tools are Crop\.") as refused:
        call(tools, "OCR")
    assert refused.value.kind == "unknown_tool"


def test_an_offered_tool_answers_to_its_aliases_in_any_spelling() -> None:
    tools = only(Recorded(), ["zoom_in_subplot"])
    aliases = ALL["ZoominSubplot"].aliases
    assert list(tools.schemas) == ["ZoominSubplot"]
    assert aliases, "the example needs a tool with an alias"
    for name in ("ZoominSubplot", "zoomin_subplot", *aliases):
        assert call(tools, name) == name


def test_tools_are_offered_in_the_order_in_which_they_were_chosen() -> None:
    assert list(only(Recorded(), ["ZoominSubplot", "ocr"]).schemas) == ["ZoominSubplot", "OCR"]


def test_a_tool_that_no_server_has_is_refused_by_name() -> None:
    with pytest.raises(UserError, match="no server has Nothing; there are OCR, Crop, ZoominSubplot"):
        only(Recorded(), ["OCR", "Nothing"])


def test_without_a_tool_nothing_can_be_called() -> None:
    with pytest.raises(ModelError, match="The tools are none"):
        call(OfferedTools(Recorded(), {}), "OCR")


class Busy:
    """A tool client that counts the calls under way."""

    schemas: Mapping[str, Any] = {"OCR": None}
    now = most = 0

    async def call(self, name: str, arguments: dict[str, Any], images: Mapping[str, Any]) -> str:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.005)
        self.now -= 1
        return name


def test_at_most_so_many_calls_are_in_flight() -> None:
    busy = Busy()
    limited = LimitedTools(busy, 3)  # type: ignore[arg-type]

    async def many() -> list[Any]:
        return await asyncio.gather(*(limited.call("OCR", {}, {}) for _ in range(10)))

    assert asyncio.run(many()) == ["OCR"] * 10
    assert busy.most == 3
    assert limited.schemas is busy.schemas
