"""A rule whose verdicts have changed has another version, by which answers that were scored before are scored again."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest

from thinkimg import jsonl
from thinkimg.evaluation import judge
from thinkimg.evaluation.charxiv import RUBRICS
from thinkimg.evaluation.judge import JudgeScorer
from thinkimg.evaluation.scorers import RULES
from thinkimg.evaluation.scoring import SCORED_BY, score
from thinkimg.identity import digest_of
from thinkimg.trajectory import Trajectory

HERE = Path(__file__).parent
VERSIONS = HERE / "scorer_versions.json"
SLOW = {"openthinkimg_fuzzy": 40}
"""Rule to how many answers it is given: math-verify takes 40 ms for an answer."""


def answers() -> Iterator[Trajectory]:
    kinds = cycle([*dict.fromkeys(RUBRICS.values()), "text", "phrase", "number"])
    for path in sorted((HERE / "verdicts").glob("*.jsonl")):
        for row in jsonl.read(path):
            meta: dict[str, Any] = {"options": row.get("options"), "rubric": next(kinds)}
            yield Trajectory(question="?", answer=row["answer"], reference=row["reference"], meta=meta)


@pytest.mark.parametrize("name", RULES)
def test_a_rule_whose_verdicts_have_changed_has_another_version(name: str) -> None:
    rule = RULES[name]
    verdicts = [rule.of(one) for one in islice(answers(), SLOW.get(name))]
    assert len(set(verdicts)) > 1
    now = [rule.version, digest_of(verdicts)]
    assert json.loads(VERSIONS.read_text()).get(name) == now, (
        f"its verdicts or its version have changed: give {name} another version in thinkimg/evaluation/scorers.py if "
        f"it has none yet, and write {json.dumps({name: now})} into {VERSIONS.name}"
    )


def test_a_judge_that_is_asked_otherwise_has_another_version() -> None:
    now = [judge._WORDING, digest_of([judge._QUESTION, judge.RULES, judge._VERDICT.pattern])]
    assert json.loads(VERSIONS.read_text()).get("judge") == now, (
        f"change `_WORDING` in thinkimg/evaluation/judge.py, and write {json.dumps({'judge': now})} into "
        f"{VERSIONS.name}"
    )


def test_the_version_stands_with_the_score() -> None:
    said = Trajectory(question="?", answer="1", reference="1", status="answered")
    asyncio.run(score(said, [RULES["exact"], replace(RULES["relaxed"], version="7")]))
    assert said.meta[SCORED_BY] == {"exact": "1", "relaxed": "7"}


def test_a_judge_of_another_address_or_with_other_criteria_is_another_one() -> None:
    versions = {
        JudgeScorer(None, named=named, criteria=criteria).version  # type: ignore[arg-type]
        for named in ("m https://a/v1", "m https://b/v1", "n https://a/v1")
        for criteria in ("", "Is it right?")
    }
    assert len(versions) == 6
