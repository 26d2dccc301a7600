"""The scorers of an evaluation: those that were asked for, or the benchmark's two."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from thinkimg.errors import UserError
from thinkimg.evaluation import official, published
from thinkimg.evaluation.identity import named
from thinkimg.evaluation.judge import JudgeScorer
from thinkimg.evaluation.published_judges import CHARXIV, FIXED, CharxivJudge, CharxivWords, ReachqaJudge
from thinkimg.evaluation.roles import named_scorers, usual_scorers, why_not
from thinkimg.evaluation.scorers import JUDGES, Scorer, find_rule, is_group_scorer
from thinkimg.evaluation.tasks import EvaluationTask
from thinkimg.models.api import ApiModel
from thinkimg.models.backends import model_of


def make_scorers(
    task: EvaluationTask, names: Sequence[str], judge: Mapping[str, Any], shared: bool = False
) -> list[Scorer]:
    """What the benchmark's two lack here is said.

    Args:
        names: `--scorer`. judge: `--judge`.
        shared: several processes share the questions.

    Raises:
        UserError: an unknown scorer; a judge that is not named, whose words cannot be had, or that would be asked
            otherwise than the benchmark asks it.
    """
    chosen = named_scorers(task, names) or usual_scorers(task, bool(judge))
    if not names and task.official and task.official not in chosen:
        lacking = why_not(task.official, bool(judge))
        print(f"{task.name}: the official score is left out: {lacking}", file=sys.stderr)
    scorers = [_judge(name, judge) if name in JUDGES else find_rule(name) for name in chosen]
    for scorer in scorers:
        if shared and is_group_scorer(scorer):
            raise UserError(
                f"{scorer.name} asks about {scorer.size} answers at a time, in the order of the data: leave --shard "
                "out, or name other scorers",
                "--shard",
            )
    return scorers


def _judge(name: str, options: Mapping[str, Any]) -> Scorer:
    sent = options.get("extra") or {}
    changed = sorted({*FIXED.get(name, ()), "seed", "temperature", "max_tokens"} & set(sent)) if name in FIXED else []
    if changed:
        raise UserError(
            f"extra.{changed[0]}: {name} is asked as the benchmark asks; leave it out, or name another scorer",
            "--judge",
        )
    words = published.constants_of(official.JUDGES[name]) if name in official.JUDGES else {}
    model, judge = model_of(options, None, "--judge")
    if name in official.JUDGES and not isinstance(judge, ApiModel):
        raise UserError(
            f"{name} is asked behind an endpoint, as the benchmark asks it: give base_url=…, or name another scorer",
            "--judge",
        )
    who = " ".join(named(model, options))
    if name == CHARXIV:
        return CharxivJudge(judge, CharxivWords.of(words), who)
    return ReachqaJudge(judge, words["Answer_Judge_Prompt"], who) if words else JudgeScorer(judge, named=who)
