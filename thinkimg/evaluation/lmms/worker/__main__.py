"""Answers each line of JSON of its input with one; whatever lmms-eval prints goes to the error output."""

import argparse
import json
import os
import sys
from importlib.metadata import version
from typing import Any

from judges import JudgeFailed, Judges, NoJudge  # type: ignore[import-not-found]  # beside this file, where it is run
from questions import Refused, Worker, listing  # type: ignore[import-not-found]


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("task", nargs="?")
    arguments.add_argument("--list", action="store_true")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--limit", type=int)
    arguments.add_argument("--replies")
    asked = arguments.parse_args()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever is printed from here on is no answer

    def say(document: dict[str, Any]) -> None:
        answers.write(json.dumps(document) + "\n")
        answers.flush()

    if asked.list:
        say({"version": version("lmms-eval"), "tasks": listing()})
        return
    key = any(name.endswith("API_KEY") and value for name, value in os.environ.items())
    judges = Judges(asked.replies, key)
    os.environ.setdefault("OPENAI_API_KEY", "none")  # clients are made before anything is asked of them
    judges.listen()
    try:
        worker = Worker(asked.task, asked.seed, asked.limit, judges)
        judge = None if key or judges.known else worker.needs_judge()
        say({**worker.about(), "judge": judge})
    except Exception as error:
        say(_error(error))
        return
    requests = {"question": worker.question, "score": worker.score, "aggregate": worker.aggregate}
    for line in sys.stdin:
        asked_for = json.loads(line)
        try:
            say(requests[asked_for.pop("do")](**asked_for))
        except JudgeFailed as error:
            say({"error": f"the judge at {error}", "whose": "infrastructure"})
        except NoJudge as error:
            say({"error": f"a judge is asked ({error}), and there is neither a key nor a recorded reply"})
        except Exception as error:
            say(_error(error))


def _error(error: Exception) -> dict[str, str]:
    last = getattr(error, "last_attempt", None)  # of lmms-eval's retries
    cause = (last.exception() if last is not None else None) or error
    return {"error": str(cause) if isinstance(cause, Refused) else f"{type(cause).__name__}: {cause}"}


if __name__ == "__main__":
    main()
