"""Records the verdicts of the published implementations that our official scorers follow, answer by answer.

    python hack/record_verdicts.py REPOSITORIES

REPOSITORIES holds clones named OWNER+NAME (`git clone --bare … EvolvingLMMs-Lab+lmms-eval`). Each file of answers in
`tests/unit/evaluation/verdicts` is read, its answers are put to the code at the commit that
`thinkimg.evaluation.official` names, and the file is written again with the verdicts. Nothing of that code is kept.
OpenThinkIMG's needs the packages math-verify and thefuzz.
"""

import json
import re
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from thinkimg.evaluation import official

VERDICTS = Path(__file__).parent.parent / "tests" / "unit" / "evaluation" / "verdicts"
Row = dict[str, Any]


def source_text(repositories: Path, source: official.Source) -> str:
    clone = repositories / source.repository.replace("/", "+")
    found = clone if (clone / "HEAD").exists() else next(path.parent for path in clone.rglob("HEAD"))
    return subprocess.run(
        ["git", "--git-dir", found, "show", f"{source.commit}:{source.file}"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def run(text: str, name: str, without: str = "$^") -> types.ModuleType:
    """The module that `text` is, without the lines that match `without`."""
    module = types.ModuleType(name)
    kept = "\n".join(line for line in text.splitlines() if not re.search(without, line))
    exec(compile(kept, name, "exec"), module.__dict__)
    return module


def chartqa(repositories: Path) -> Callable[[Row], float]:
    module = run(source_text(repositories, official.CHARTQA), "chartqa")
    return lambda row: float(module.relaxed_correctness(row["answer"], row["reference"]))


def vstar(repositories: Path) -> Callable[[Row], float]:
    module = run(source_text(repositories, official.VSTAR), "vstar", "loguru")
    return lambda row: float(module.extract_answer_letter(row["answer"]) == row["reference"].strip().upper())


def hrbench(repositories: Path) -> Callable[[Row], float]:
    module = run(source_text(repositories, official.VLMEVALKIT), "matching_util", "get_logger|^logger")
    return lambda row: float((module.can_infer(row["answer"], dict(row["options"])) or "Z") == row["reference"])


def chartgemma(repositories: Path) -> Callable[[Row], float]:
    module = run(
        source_text(repositories, official.CHARTGEMMA),
        "chartgemma",
        r"^from \.|^from datasets|get_logger\(|^task_config",
    )

    def verdict(row: Row) -> float:
        results = [{"idx": 0, "results": {"final_answer": row["answer"]}}]
        return float(module.evaluate_function(results, [{"idx": 0, "label": row["reference"]}])["Acc"])

    return verdict


IMPLEMENTATIONS = {"chartqa": chartqa, "charts": chartqa, "vstar": vstar, "hrbench": hrbench, "chartgemma": chartgemma}


def main(repositories: Path) -> None:
    for name, make in IMPLEMENTATIONS.items():
        path, verdict = VERDICTS / f"{name}.jsonl", make(repositories)
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
        for row in rows:
            row["verdict"] = verdict(row)
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        print(f"{name}: {len(rows)} answers, {sum(row['verdict'] == 1 for row in rows)} right")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
