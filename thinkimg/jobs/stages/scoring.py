"""What decides in a stage whether an answer is right, as its manifest says it: alike for the reward `accuracy`, a gate,
an evaluation and the filter of a synthesis."""

from collections.abc import Sequence

from thinkimg.api import Reward, Stage
from thinkimg.api import Scorer as Named
from thinkimg.errors import UserError
from thinkimg.evaluation.judge import JudgeScorer
from thinkimg.evaluation.roles import with_the_other
from thinkimg.evaluation.scorers import RULES, RuleScorer, Scorer
from thinkimg.identity import address_of, module_content
from thinkimg.models.judge import judge_model
from thinkimg.training.rewards import BoundReward, make_rewards, value_of
from thinkimg.trajectory import Trajectory


class FunctionScorer:
    """A function of the user's own, found and called as a reward is. Its version is what its module's file holds.

    Raises:
        UserError: it is not there.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.version = (module_content(name.partition(":")[0]) if ":" in name else None) or ""
        (self._reward,) = make_rewards([Reward(name=name)])

    async def score(self, trajectory: Trajectory) -> float:
        """Raises `UserError` where the function raises, or gives no number from 0 to 1."""
        if trajectory.answer is None:
            return 0.0
        value = await value_of(self._reward, trajectory)
        if value is None or not 0 <= value <= 1:
            raise UserError(
                f"the scorer {self.name} gives {value} for trajectory {trajectory.id}, not 0 to 1", "scorer"
            )
        return value


def make_scorer(named: Named) -> Scorer:
    """Raises `UserError`: a function that is not there, a judge without its key."""
    if named.judge is not None:
        who = f"{named.judge.model} {address_of(named.judge.base_url)}"
        return JudgeScorer(judge_model(named.judge), criteria=named.judge.criteria, named=who)
    return RULES.get(named.name) or FunctionScorer(named.name)


def scorer_of(stage: Stage) -> Scorer:
    """Raises as `make_scorer`."""
    assert stage.scorer is not None, "inherited from the job"
    return make_scorer(stage.scorer)


def scorers_of(stage: Stage) -> list[Scorer]:
    """What an evaluation shows: the stage's scorer, which decides, and the rule of the other kind beside it.

    Raises as `make_scorer`."""
    return with_the_other(scorer_of(stage))


def rewards_of(rewards: Sequence[Reward], scorer: Scorer) -> list[BoundReward]:
    """A stage's rewards: `accuracy` is the scorer's verdict. A function of the user's own that takes a `scorer` gets
    the rule alone, of answer and reference.

    Raises:
        UserError: see `make_rewards`; a scorer that is no rule for a function that takes one.
    """
    rule = scorer if isinstance(scorer, RuleScorer) else None

    def of_texts(answer: str, reference: str) -> float:
        assert rule is not None
        return rule.of(Trajectory(question="", reference=reference, answer=answer))

    return make_rewards(rewards, of_texts if rule else None, scorer.score)
