"""A benchmark's two scores: the official one, for comparisons with papers, and the normalised one, ours."""

import importlib.util
from collections.abc import Collection, Iterable, Mapping, Sequence

from thinkimg.errors import UserError
from thinkimg.evaluation import official
from thinkimg.evaluation.scorers import JUDGES, RULES, RuleScorer, Scorer
from thinkimg.evaluation.tasks import TASKS, EvaluationTask
from thinkimg.results import ROLES, Score, ScorerRole

_NEEDS = {"openthinkimg_fuzzy": ("math_verify", "the extra `evaluation`")}
"""Scorer to the module that it computes with, and where that comes from."""


def role_of(scorer: str, task: str = "", judges: Collection[str] = ()) -> ScorerRole:
    """Of a scorer in the results of a built-in task, or of other questions; "": neither kind.

    Args:
        judges: who judged, as `thinkimg.evaluation.identity.named` says it. A judge's verdict is official where a
            benchmark's own judge gave it, asked as the benchmark does.
    """
    known = TASKS.get(task)
    if scorer in JUDGES:
        own = official.JUDGES.get(scorer)
        asked_so = own is not None and all(is_model(own.model, judge) for judge in judges)
        if known and scorer == known.official and judges and asked_so:
            return "official"
        return "judged" if known or judges else ""
    if known:
        return "official" if scorer == known.official else "normalised" if scorer == known.normalised else ""
    rule = RULES.get(scorer)
    return rule.role if rule and rule.beside else ""


def is_model(model: str, judge: str) -> bool:
    """Whether a judge is this model: name and address, and nothing else that is sent."""
    name, *others = judge.split(" ")
    return name == model and len(others) == 1


def score_of(scores: Mapping[str, Score], role: str) -> tuple[str, Score] | None:
    """Name and figures of the score of a kind; None where answers were not scored so."""
    return next(((name, score) for name, score in scores.items() if score.role == role), None)


def shown_roles(models: Iterable[Mapping[str, Score]]) -> list[str]:
    """The kinds of scores that a table of models shows beside the accuracy: both, where all of them have both."""
    known = list(models)
    shown = [role for role in ROLES if all(score_of(scores, role) for scores in known)]
    return shown if known and len(shown) == len(ROLES) else []


def roles_beside(models: Iterable[Mapping[str, Score]]) -> list[str]:
    """Those of `shown_roles` that do not decide what is right, which the accuracy tells."""
    known = list(models)
    deciding = {next(iter(scores.values())).role for scores in known if scores}
    return [role for role in shown_roles(known) if role not in deciding]


def in_words(models: Iterable[Mapping[str, Score]]) -> str:
    """Which scorer decides, and what the two are called; empty where there are not two."""
    scores = next((found for found in models if found), {})
    kinds = [f"{score.role} is `{name}`" for name, score in scores.items() if score.role]
    if len(kinds) < len(ROLES):
        return ""
    return f"Right is what `{next(iter(scores))}` says; {', '.join(kinds)}. With papers compare the official score."


def usual_scorers(task: EvaluationTask, judged: bool) -> list[str]:
    """The one that decides, then the other one of the benchmark, if it can be computed here.

    Args:
        judged: a judge is named.
    """
    others = [task.official, task.normalised] if task.official or task.normalised else [_beside(task.scorer)]
    names = dict.fromkeys(name for name in (task.scorer, *others) if name)
    return [name for name in names if name == task.scorer or not why_not(name, judged)]


def why_not(scorer: str, judged: bool) -> str:
    """What a scorer lacks here; "" if nothing."""
    if scorer in JUDGES and not judged:
        return "it is a judge's verdict, and needs --judge"
    module, source = _NEEDS.get(scorer, ("", ""))
    return f"it needs {source}" if module and importlib.util.find_spec(module) is None else ""


def named_scorers(task: EvaluationTask, names: Sequence[str]) -> list[str]:
    """As they were asked for, `official` and `normalised` among them.

    Raises:
        UserError: the task has none of that kind.
    """
    return list(dict.fromkeys(_named(task, name) for name in names))


def _named(task: EvaluationTask, name: str) -> str:
    if name not in ROLES:
        return name
    found = task.official if name == "official" else task.normalised
    if not found:
        raise UserError(f"{task.name} has no {name} scorer; name one of {', '.join((*RULES, *JUDGES))}", "--scorer")
    return found


def with_the_other(scorer: Scorer) -> list[Scorer]:
    """A scorer, and the rule of the other kind that is shown beside it."""
    beside = _beside(scorer.name) if isinstance(scorer, RuleScorer) else ""
    return [scorer, RULES[beside]] if beside else [scorer]


def _beside(name: str) -> str:
    return RULES[name].beside if name in RULES else ""
