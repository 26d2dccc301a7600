"""Evaluation with a model that costs nothing: items per second, and memory as it goes. Prints one JSON object.

A stub model in the process answers after a turn with a tool call; questions come from a JSONL file, answers go to a
folder, as `thinkimg eval` does it. Memory is the process' resident set after so many items.

    python bench/eval.py [--items 10000]
"""

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image as Pillow

from thinkimg.agent.agent import Agent
from thinkimg.agent.formats import Call, OpenThinkIMG, Parsed
from thinkimg.evaluation.evaluate import Settings, evaluate
from thinkimg.evaluation.output import Output
from thinkimg.evaluation.scorers import find_rule
from thinkimg.evaluation.tasks import EvaluationTask
from thinkimg.image import Image
from thinkimg.models.chat import Reply, SamplingParameters
from thinkimg.results import EvaluationResults, EvaluationSettings
from thinkimg.tools.tool import ToolResult, ToolSchema
from thinkimg.trajectory import Trajectory
from thinkimg.trajectory.store import Store

PICTURES = 20
FIRST = 1000
FORMAT = OpenThinkIMG()


class Stub:
    """Calls a tool, then answers with the number in the question; waits a millisecond as a model would."""

    async def reply(self, trajectory: Trajectory, sampling: SamplingParameters, seed: int) -> Reply:
        await asyncio.sleep(0.001)
        if trajectory.rounds == 0:
            return Reply(FORMAT.write(Parsed("I look.", (Call("Look", {"image": "img_1"}),))), "stop")
        return Reply(FORMAT.write(Parsed("I see.", answer=trajectory.question.split()[-1])), "stop")


class Looking:
    """One tool that says the size of a picture."""

    schemas: Mapping[str, ToolSchema] = {
        "Look": ToolSchema(name="Look", version="1", description="The size.", parameters={"type": "object"})
    }

    async def call(self, name: str, arguments: dict[str, Any], images: Mapping[str, Image]) -> Any:
        image = images[arguments["image"]]
        return _Outcome(ToolResult(f"{image.width}x{image.height}"))


class _Outcome:
    cached = False

    def __init__(self, result: ToolResult) -> None:
        self.result = result


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def write_questions(folder: Path, items: int) -> Path:
    for number in range(PICTURES):
        Pillow.new("RGB", (336, 336), (number * 12, 90, 90)).save(folder / f"{number}.png")
    path = folder / "questions.jsonl"
    with path.open("w") as file:
        for number in range(items):
            row = {"id": f"q{number}", "question": f"What is {number}", "answer": str(number - number % 3)}
            file.write(json.dumps(row | {"image": f"{number % PICTURES}.png"}) + "\n")
    return path


def main(items: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        task = EvaluationTask("bench", str(write_questions(folder, items)))
        output = Output(folder / "out", EvaluationSettings(task="bench", name="stub"))
        output.claim()
        memory: dict[int, float] = {}
        done = 0

        def progress(number: int, trajectory: Trajectory | None) -> None:
            nonlocal done
            done += 1
            if done in (FIRST, items):
                memory[done] = resident_mb()

        async def work() -> EvaluationResults | None:
            with Store(output.store) as store:
                agent, settings = Agent(Stub(), Looking()), Settings("stub", "bench")
                names = await evaluate(agent, task.tasks(), [find_rule("exact")], store, settings, progress=progress)
                return output.finish(store, names, time.monotonic() - began)

        began = time.monotonic()
        results = asyncio.run(work())
        seconds = time.monotonic() - began
        assert results is not None
        assert results.n == items
        assert results.tools == {"Look": items}
    return {
        "benchmark": "eval",
        "items": items,
        "seconds": round(seconds, 1),
        "items_per_second": round(items / seconds, 1),
        f"rss_mb_at_{FIRST}": round(memory[FIRST], 1),
        f"rss_mb_at_{items}": round(memory[items], 1),
        "rss_growth_mb": round(memory[items] - memory[FIRST], 1),
        "rss_mb_after_results": round(resident_mb(), 1),
        "accuracy": results.accuracy,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=10_000)
    print(json.dumps(main(parser.parse_args().items)))
