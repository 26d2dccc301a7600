"""Official scorers against the published implementations: answers that were put to both (`hack/record_verdicts.py`)."""

from pathlib import Path
from typing import Any

import pytest

from thinkimg import jsonl
from thinkimg.evaluation.scorers import RULES
from thinkimg.evaluation.tasks import TASKS
from thinkimg.trajectory import Trajectory

SLOW = {"chartgemma"}
"""Math-verify takes 40 ms for an answer."""
RECORDED = [
    pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if path.stem in SLOW else [])
    for path in sorted((Path(__file__).parent / "verdicts").glob("*.jsonl"))
]


def rows_of(path: Path) -> list[dict[str, Any]]:
    return list(jsonl.read(path))


@pytest.mark.parametrize("path", RECORDED)
def test_the_official_score_is_the_published_implementations_verdict(path: Path) -> None:
    rule = RULES[TASKS[path.stem].official]
    wrong = []
    for row in rows_of(path):
        meta = {"options": row["options"]} if "options" in row else {}
        said = Trajectory(question="?", answer=row["answer"], reference=row["reference"], meta=meta)
        if rule.of(said) != pytest.approx(row["verdict"]):
            wrong.append((row, rule.of(said)))
    assert not wrong
