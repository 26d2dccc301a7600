"""Planners propose what a cold-start trajectory does; the agent loop executes it through the live tools.

A planner is a `ChatModel`, so a capable model behind an OpenAI-compatible endpoint (`thinkimg.models.api.ApiModel`) is
one. `ScriptedPlanner` is the one that needs no model: it knows the question's record, but not the picture, and draws a
chain of tools at random. The mixture is deliberate: cold-start data of the paper's kind shows the syntax and every
tool, good uses and poor ones, and leaves it to RL to find out which chain answers which question.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from thinkimg.agent.formats import Call, Format, Parsed
from thinkimg.errors import UserError
from thinkimg.image import handle
from thinkimg.models.chat import Reply, SamplingParameters
from thinkimg.trajectory import Trajectory

Step = Callable[[Trajectory], Call | None]
"""The next call, given what came back so far; None when there is nothing sensible to call."""

THOUGHTS = {
    "OCR": "I read the text.",
    "ZoominSubplot": "I look at the panel.",
    "Point": "I find the place.",
    "DrawHorizontalLineByY": "I compare heights.",
    "DrawVerticalLineByX": "I compare positions.",
    "Crop": "I look closer.",
    "SegmentRegionAroundPoint": "I take the region.",
}


def _newest(trajectory: Trajectory) -> str:
    return handle(len(trajectory.images))


def _ocr(trajectory: Trajectory) -> Call:
    return Call("OCR", {"image": _newest(trajectory)})


def _zoom(trajectory: Trajectory) -> Call | None:
    panel = trajectory.meta.get("panel")
    return Call("ZoominSubplot", {"image": "img_1", "description": panel}) if panel else None


def _point(trajectory: Trajectory) -> Call | None:
    label = trajectory.meta.get("label")
    return Call("Point", {"image": "img_1", "description": label}) if label else None


def _line(trajectory: Trajectory) -> Call | None:
    points = [point for result in trajectory.tool_results for point in result.data.get("points", [])]
    return Call("DrawHorizontalLineByY", {"image": "img_1", "y": round(float(points[0]["y"]))}) if points else None


CHAINS: dict[str, tuple[Step, ...]] = {
    "none": (),
    "ocr": (_ocr,),
    "zoom": (_zoom,),
    "zoom-ocr": (_zoom, _ocr),
    "point": (_point,),
    "point-line": (_point, _line),
}


_TOOL_OF: dict[Step, str] = {
    _ocr: "OCR",
    _zoom: "ZoominSubplot",
    _point: "Point",
    _line: "DrawHorizontalLineByY",
}


def tools_of_chain(name: str) -> list[str]:
    """The tools that a chain of `CHAINS` calls, in order."""
    return [_TOOL_OF[step] for step in CHAINS[name]]


ONE_PICTURE = "and scripted plans are of one: use a planner of type Model, or chains: {none: 1}"


@dataclass(frozen=True)
class ScriptedPlanner:
    """Args:
    format: the syntax the trajectories are written in.
    chains: weight per chain's name, a key of `CHAINS`; a chain whose first step does not apply to a question (no
        panel to zoom into) is not drawn for it.
    """

    format: Format
    chains: Mapping[str, float]

    async def reply(self, trajectory: Trajectory, sampling: SamplingParameters, seed: int) -> Reply:
        chain = trajectory.meta.setdefault("chain", self._draw(trajectory, random.Random(seed)))
        done = trajectory.rounds
        steps = CHAINS[chain]
        failed = any(result.error for result in trajectory.tool_results)
        call = steps[done](trajectory) if done < len(steps) and not failed else None
        if call:
            parsed = Parsed(THOUGHTS[call.name], (call,))
        else:
            answer = trajectory.reference or ""
            parsed = Parsed(evidence(trajectory.meta.get("label"), answer), answer=answer)
        return Reply(self.format.write(parsed), "stop")

    def _draw(self, trajectory: Trajectory, rng: random.Random) -> str:
        """Raises `UserError`: a question of several pictures, of which no record says which one to look at."""
        shown = sum(len(turn.message.images) for turn in trajectory.turns[: trajectory.prompt_turns])
        if shown > 1 and any(CHAINS[name] for name in self.chains):
            asked = f"task {trajectory.meta.get('task', trajectory.id)}"
            raise UserError(f"{asked} has {shown} pictures, {ONE_PICTURE}", "synthesize.planner")
        fitting = [name for name in self.chains if not CHAINS[name] or CHAINS[name][0](trajectory)]
        return rng.choices(fitting, [self.chains[name] for name in fitting])[0] if fitting else "none"


def evidence(label: str | None, answer: str) -> str:
    """The thought before an answer: what was read, as it was read ("Fig 34"), or what was seen."""
    return f"{label} {answer}" if label else f"I see {answer}"


def scripted_texts(format: Format, blank: str) -> list[str]:
    """Every text the scripted planner can write, values replaced by `blank`: a tokenizer made for it may treat the
    pieces between as phrases."""
    arguments: dict[str, dict[str, Any]] = {
        "OCR": {"image": f"img_{blank}"},
        "ZoominSubplot": {"image": f"img_{blank}", "description": blank},
        "Point": {"image": f"img_{blank}", "description": blank},
        "DrawHorizontalLineByY": {"image": f"img_{blank}", "y": blank},
    }
    texts = [format.write(Parsed(THOUGHTS[name], (Call(name, values),))) for name, values in arguments.items()]
    # A number stands without quotes.
    texts = [text.replace(f'"y": "{blank}"', f'"y": {blank}') for text in texts]
    answers = [evidence(label, blank) for label in (blank, None)]
    return [*texts, *(format.write(Parsed(thought, answer=blank)) for thought in answers)]
