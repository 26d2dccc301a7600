"""A small run whose trajectories were really executed: the agent loop, real tools on generated charts, scripted models.

Only what the models say is written down here; boxes, points, masks and texts are what the tools found.
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from thinkimg.agent.agent import Agent, Limits
from thinkimg.agent.formats import Call, OpenThinkIMG, Parsed
from thinkimg.data.chart_drawing import draw_chart
from thinkimg.data.charts import Question, make_questions
from thinkimg.evaluation.metrics import relaxed_match
from thinkimg.image import Image
from thinkimg.models.chat import Reply, SamplingParameters
from thinkimg.tools.registry import load_tool
from thinkimg.tools.tool import Tool, ToolResult, ToolSchema
from thinkimg.trajectory import Task, Trajectory, write_trajectories

TOOLS = ("OCR", "Point", "Crop", "SegmentRegionAroundPoint", "ZoominSubplot")
IMAGE_TOKEN = "<|image_pad|>"
FORMAT = OpenThinkIMG()
Says = Callable[[Trajectory], Parsed]


@dataclass(frozen=True)
class Result:
    result: ToolResult
    cached: bool = False


class RealTools:
    """The registered tools, loaded in this process."""

    def __init__(self, names: tuple[str, ...] = TOOLS) -> None:
        self._tools: dict[str, Tool] = {name: load_tool(name) for name in names}
        self.schemas: Mapping[str, ToolSchema] = {name: tool.schema for name, tool in self._tools.items()}

    async def call(self, name: str, arguments: dict[str, Any], images: Mapping[str, Image]) -> Result:
        return Result(self._tools[name].run(arguments, images))


@dataclass(frozen=True)
class Scripted:
    """A `ChatModel` that says one line of its script after the other; the last one answers."""

    script: tuple[Says, ...]

    async def reply(self, trajectory: Trajectory, sampling: SamplingParameters, seed: int) -> Reply:
        return Reply(FORMAT.write(self.script[min(trajectory.rounds, len(self.script) - 1)](trajectory)), "stop")


def calls(thought: str, name: str, arguments: Callable[[Trajectory], dict[str, Any]]) -> Says:
    return lambda trajectory: Parsed(thought, (Call(name, arguments(trajectory)),))


def answers(thought: str, text: Callable[[Trajectory], str]) -> Says:
    return lambda trajectory: Parsed(thought, answer=text(trajectory))


def points_of(trajectory: Trajectory) -> list[list[float]]:
    found = [point for result in trajectory.tool_results for point in result.data.get("points", [])]
    return [[point["x"], point["y"]] if isinstance(point, dict) else list(point) for point in found][:1] or [[50, 50]]


def around(trajectory: Trajectory) -> list[float]:
    (x, y) = points_of(trajectory)[0]
    return [max(0, x - 14), max(0, y - 24), min(100, x + 14), min(100, y + 24)]


def with_tools(question: Question) -> tuple[Says, ...]:
    label = question.label or "title"
    return (
        calls(f"I find {label} first.", "Point", lambda _: {"image": "img_1", "description": label}),
        calls(
            "I take the region there.", "SegmentRegionAroundPoint", lambda t: {"image": "img_1", "points": points_of(t)}
        ),
        calls("I look closer.", "Crop", lambda t: {"image": "img_1", "box": around(t)}),
        calls("Now I read it.", "OCR", lambda t: {"image": "img_3" if "img_3" in t.images else "img_1"}),
        answers("The text says it.", lambda _: question.answer),
    )


def careless(question: Question) -> tuple[Says, ...]:
    return (
        calls("I read the picture.", "OCR", lambda _: {"image": "img_9"}),
        calls("I read the right one.", "OCR", lambda _: {"image": "img_1"}),
        answers(
            "I take the first number.", lambda t: next(iter(filter(str.isdigit, t.tool_results[-1].text.split())), "7")
        ),
    )


def blind(_: Question) -> tuple[Says, ...]:
    return (answers("I guess.", lambda _: "42"),)


MODELS: dict[str, Callable[[Question], tuple[Says, ...]]] = {"base": blind, "sft": careless, "v-toolrl": with_tools}


def write_executed_run(run: Path, questions: int = 3, seed: int = 0) -> Path:
    """Below `run`, as an Evaluate stage leaves it, and a tokenizer where the base model has its own."""
    asked = make_questions("test", questions, seed, 1, {"value": 0.7, "compare": 0.3})
    tools = RealTools()
    chance = random.Random(seed)
    made = {name: asyncio.run(_answer_all(name, asked, tools)) for name in MODELS}
    tokenizer = _train_tokenizer([one for found in made.values() for one in found])
    for name, found in made.items():
        for trajectory in found:
            _add_tokens(trajectory, tokenizer, chance)
        write_trajectories(found, run / "stages" / "table" / name / "greedy.jsonl")
    (run / "base").mkdir()
    tokenizer.save(str(run / "base" / "tokenizer.json"))
    return run


async def _answer_all(name: str, asked: list[Question], tools: RealTools) -> list[Trajectory]:
    found = []
    for question in asked:
        image = Image.from_pixels(draw_chart(question.chart).image)
        task = Task(question.id, question.text, (image,), question.answer, {"kind": question.kind, "model": name})
        one = await Agent(Scripted(MODELS[name](question)), tools, Limits(rounds=6)).run(task)
        one.id = f"{name}-{question.id}"
        one.correct = relaxed_match(one.answer, question.answer)
        one.rewards = {"accuracy": float(one.correct), "format": 1.0 - bool(one.meta.get("malformed"))}
        found.append(one)
    return found


def _train_tokenizer(trajectories: list[Trajectory]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=[IMAGE_TOKEN], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator((turn.message.text for one in trajectories for turn in one.turns), trainer)
    return tokenizer


def _add_tokens(trajectory: Trajectory, tokenizer: Tokenizer, chance: random.Random) -> None:
    """Real ids of what was said; how likely each was is made up, since nothing was sampled."""
    image = tokenizer.token_to_id(IMAGE_TOKEN)
    for turn in trajectory.turns:
        own = turn.role == "assistant"
        turn.tokens = [image] * 64 * len(turn.message.images) + tokenizer.encode(turn.message.text).ids
        turn.mask = [own] * len(turn.tokens)
        turn.logprobs = [-chance.expovariate(4) if own else 0.0 for _ in turn.tokens]
        turn.finish = "stop" if own else None
