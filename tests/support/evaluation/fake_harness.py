"""Stands for a Python in whose environment lmms-eval is installed: it speaks the worker's lines about two questions.

Run as `PYTHON fake_harness.py WORKER TASK ...`; tests name a script that does so in LMMS_EVAL_PYTHON.
"""

import base64
import io
import json
import sys
from pathlib import Path
from typing import Any

from PIL import Image

ANSWERS = ["red", "blue"]


def picture(color: str) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), color).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def question(number: int) -> dict[str, Any]:
    parts = [{"picture": picture(ANSWERS[number])}, {"text": "Which colour?"}]
    return {"id": f"colours/{number}", "task": "colours", "parts": parts, "reference": ANSWERS[number]}


def score(number: int, answer: str) -> dict[str, Any]:
    if answer == "the judge is down":
        return {"error": "the judge at http://x does not answer", "whose": "infrastructure"}
    value = float(answer == ANSWERS[number])
    return {"metric": "right", "filter": "none", "value": value, "metrics": {"right": value}}


def aggregate(answers: list[str | None]) -> dict[str, Any]:
    share = sum(map(str.__eq__, map(str, answers), ANSWERS)) / len(ANSWERS)
    return {"results": {"colours": {"alias": "colours", "right,none": share, "right_stderr,none": "N/A", "samples": 2}}}


def about(task: str) -> dict[str, Any]:
    if task == "nothing":
        return {"error": "lmms-eval 0.7.3 has no task 'nothing'"}
    judge = "https://api.openai.com/v1/chat/completions" if task == "judged" else None
    return {"questions": 2, "metric": "right", "higher_is_better": task != "errors", "judge": judge}


def main() -> None:
    _, _, task, *arguments = sys.argv
    if task == "--list":
        print(json.dumps({"tasks": [{"name": "colours", "source": ["org/colours", "", "test"], "metrics": ["right"]}]}))
        return
    replies = Path(arguments[arguments.index("--replies") + 1])
    replies.with_name("arguments.json").write_text(json.dumps(arguments))
    print(json.dumps(about(task)), flush=True)
    requests = {"question": question, "score": score, "aggregate": aggregate}
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(requests[asked.pop("do")](**asked)), flush=True)


if __name__ == "__main__":
    main()
