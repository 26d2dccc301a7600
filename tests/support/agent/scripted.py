"""A model that says what it is told to, and tools of one line each, in this process."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image as Pillow

from thinkimg.agent.formats import Call, OpenThinkIMG, Parsed
from thinkimg.errors import InfrastructureError, ModelError
from thinkimg.image import Image
from thinkimg.models.chat import Reply, SamplingParameters
from thinkimg.tools.tool import ToolResult, ToolSchema
from thinkimg.trajectory import Task, Trajectory

FORMAT = OpenThinkIMG()


def picture(width: int = 8, height: int = 6) -> Image:
    return Image.from_pixels(Pillow.new("RGB", (width, height), "teal"))


TASK = Task("t1", "How tall?", (picture(),), reference="7", meta={"kind": "bar"})


def says(*calls: Call) -> str:
    return FORMAT.write(Parsed("hm", calls))


def answers(text: str) -> str:
    return FORMAT.write(Parsed("so", answer=text))


class Scripted:
    """A `ChatModel`: one entry per turn, a text, a `Reply` or an exception; the last is said for ever."""

    def __init__(self, *script: str | Reply | Exception, seconds: float = 0.0) -> None:
        self.script = script
        self.seconds = seconds
        self.seeds: list[int] = []
        self.sampling: list[SamplingParameters] = []

    async def reply(self, trajectory: Trajectory, sampling: SamplingParameters, seed: int) -> Reply:
        self.seeds.append(seed)
        self.sampling.append(sampling)
        await asyncio.sleep(self.seconds)
        said = self.script[min(self.place(trajectory), len(self.script) - 1)]
        if isinstance(said, Exception):
            raise said
        return said if isinstance(said, Reply) else Reply(said, "stop")

    def place(self, trajectory: Trajectory) -> int:
        return trajectory.rounds


class InTurn(Scripted):
    """One entry per time that it is asked, answered or not."""

    def place(self, trajectory: Trajectory) -> int:
        return len(self.seeds) - 1


@dataclass(frozen=True)
class Result:
    result: ToolResult
    cached: bool = False


async def crop(images: Mapping[str, Image], image: str, width: int = 4, height: int = 3) -> Result:
    if image not in images:
        raise ModelError(f'there is no image "{image}"')
    return Result(ToolResult(f"{width}x{height}", {"box": [0, 0, 1, 1]}, (picture(width, height),)))


async def wait(images: Mapping[str, Image], seconds: float, text: str = "") -> Result:
    await asyncio.sleep(seconds)
    return Result(ToolResult(text or f"{seconds}"), cached=True)


async def crash(images: Mapping[str, Image]) -> Result:
    raise InfrastructureError("the server is gone")


async def bug(images: Mapping[str, Image]) -> Result:
    raise ZeroDivisionError


async def time_out(images: Mapping[str, Image]) -> Result:
    raise TimeoutError


class InProcess:
    """`Tools` from the coroutines above; `finished` holds names in the order in which calls ended."""

    def __init__(self, *functions: Callable[..., Any]) -> None:
        self.functions = {function.__name__: function for function in functions}
        self.schemas: Mapping[str, ToolSchema] = {
            name: ToolSchema(name=name, version="1", description=f"It can {name}.", parameters={"type": "object"})
            for name in self.functions
        }
        self.finished: list[str] = []

    async def call(self, name: str, arguments: dict[str, Any], images: Mapping[str, Image]) -> Result:
        if name not in self.functions:
            raise ModelError(f"There is no tool {name}.", kind="unknown_tool")
        outcome: Result = await self.functions[name](images, **arguments)
        self.finished.append(outcome.result.text)
        return outcome


def roles(trajectory: Trajectory) -> Sequence[str]:
    return [turn.role for turn in trajectory.turns]
