"""Stands for a Python in whose environment lmms-eval is installed: it speaks the worker's lines about tasks of two
questions each, and about groups of them.

Run as `PYTHON fake_harness.py WORKER TASK ...`; tests name a script that does so in LMMS_EVAL_PYTHON.
"""

import base64
import io
import json
import sys
from pathlib import Path
from typing import Any

from PIL import Image

ANSWERS = {"colours": ["red", "blue"], "more-colours": ["green", "blue"], "errors": ["1", "2"], "lengths": ["3", "4"]}
METRICS = {"colours": "right", "more-colours": "right", "errors": "wer", "lengths": "anls"}
GROUPS = {
    "judged": ["colours"],
    "all-colours": ["colours", "more-colours"],
    "colours-and-errors": ["colours", "errors"],
    "colours-and-lengths": ["colours", "lengths"],
}


def picture(text: str) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), "white" if text.isdigit() else text).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


class Tasks:
    """A task, or those of a group."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tasks = GROUPS.get(name, [name])
        self.questions = [(task, number) for task in self.tasks for number in range(2)]

    def about(self) -> dict[str, Any]:
        if self.tasks[0] not in ANSWERS:
            return {"error": f"lmms-eval 0.7.3 has no task {self.name!r}"}
        judge = "https://api.openai.com/v1/chat/completions" if self.name == "judged" else None
        told = {task: {"metric": METRICS[task], "higher_is_better": task != "errors"} for task in self.tasks}
        return {"questions": len(self.questions), "tasks": told, "judge": judge}

    def question(self, number: int) -> dict[str, Any]:
        task, index = self.questions[number]
        answer = ANSWERS[task][index]
        parts = [{"picture": picture(answer)}, {"text": "Which colour?"}]
        return {"id": f"{task}/{index}", "task": task, "parts": parts, "reference": answer}

    def score(self, number: int, answer: str) -> dict[str, Any]:
        task, index = self.questions[number]
        if answer == "the judge is down":
            return {"error": "the judge at http://x does not answer", "whose": "infrastructure"}
        value = float(answer == ANSWERS[task][index])
        return {"metric": METRICS[task], "filter": "none", "value": value, "metrics": {METRICS[task]: value}}

    def aggregate(self, answers: list[str | None]) -> dict[str, Any]:
        """Of each task, and of a group the mean over its tasks, as lmms-eval has it."""
        results, shares = {}, []
        for task in self.tasks:
            given = [answer for (of, _), answer in zip(self.questions, answers, strict=True) if of == task]
            shares.append(sum(map(str.__eq__, map(str, given), ANSWERS[task])) / 2)
            results[task] = {"alias": task, "right,none": shares[-1], "right_stderr,none": "N/A", "samples": 2}
        if len(self.tasks) > 1:
            results[self.name] = {"alias": self.name, "right,none": sum(shares) / len(shares)}
        return {"results": results}


def main() -> None:
    _, _, task, *arguments = sys.argv
    if task == "--list":
        print(json.dumps({"tasks": [{"name": "colours", "source": ["org/colours", "", "test"], "metrics": ["right"]}]}))
        return
    replies = Path(arguments[arguments.index("--replies") + 1])
    replies.with_name("arguments.json").write_text(json.dumps(arguments))
    tasks = Tasks(task)
    print(json.dumps(tasks.about()), flush=True)
    requests = {"question": tasks.question, "score": tasks.score, "aggregate": tasks.aggregate}
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(requests[asked.pop("do")](**asked)), flush=True)


if __name__ == "__main__":
    main()
