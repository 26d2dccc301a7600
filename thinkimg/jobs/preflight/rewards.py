"""Every reward of a stage, found and called as the stage will call it."""

import asyncio
from collections.abc import Iterator, Sequence

from thinkimg.agent.agent import Agent
from thinkimg.agent.tools import NoTools
from thinkimg.api import Reward, Stage
from thinkimg.errors import InfrastructureError, UserError
from thinkimg.evaluation.judge import JudgeScorer
from thinkimg.evaluation.scorers import RULES, Scorer
from thinkimg.jobs.preflight.endpoints import Question
from thinkimg.jobs.preflight.findings import Finding, Plan, block_of
from thinkimg.jobs.stages.questions import UnaskedModel
from thinkimg.jobs.stages.scoring import rewards_of, scorer_of
from thinkimg.message import TextBlock, ToolCallBlock, ToolResultBlock
from thinkimg.models.api import ApiModel
from thinkimg.training.judge import JudgeReward
from thinkimg.training.rewards import BoundReward, value_of
from thinkimg.trajectory import Task, Trajectory, Turn

_FORM = (
    "It must be a function of one thinkimg.trajectory.Trajectory that returns a number or None; see add-a-reward.md."
)


def check_rewards(plan: Plan) -> tuple[list[Finding], list[Question]]:
    """What is wrong with the rewards; and the judges that are still to be asked."""
    found: list[Finding] = []
    judges: list[Question] = []
    for index, stage in plan.stages():
        scorer = _scorer(plan, index, stage, found, judges)
        for number, reward in enumerate(stage.grpo.rewards if stage.grpo else ()):
            loc = block_of(index, stage, "rewards", number)
            try:
                (bound,) = rewards_of([reward], scorer)
            except UserError as error:
                found.append(plan.refused((*loc, "judge" if reward.judge else "name"), error, _remedy(reward)))
                continue
            if isinstance(bound.function, JudgeReward):
                judges.append(Question((*loc, "judge"), _asked(bound, plan)))
            elif "train" in plan.tasks and not (reward.name == "accuracy" and isinstance(scorer, JudgeScorer)):
                found += _tried(plan, loc, bound)
    return found, judges


def _scorer(plan: Plan, index: int, stage: Stage, found: list[Finding], judges: list[Question]) -> Scorer:
    """A stage's scorer, tried as a reward is; where there is none, another in its place."""
    loc = ("spec", "stages", index, "scorer")
    try:
        scorer = scorer_of(stage)
    except UserError as error:
        found.append(
            plan.refused(loc, error, "Correct the name, or give the judge's key in spec.env or spec.secretRefs.")
        )
        return RULES["relaxed_normalised"]
    if isinstance(scorer, JudgeScorer):
        judges.append(Question((*loc, "judge"), _judged(scorer, plan)))
    elif "train" in plan.tasks:
        found += _tried(plan, loc, BoundReward("accuracy", scorer.score))
    return scorer


async def _judged(scorer: JudgeScorer, plan: Plan) -> float:
    """A judge's verdict on one answer."""
    try:
        return await scorer.score(trials(_task(plan))[0])
    finally:
        if isinstance(scorer.model, ApiModel):
            await scorer.model.close()


def _task(plan: Plan) -> Task:
    return plan.tasks["train"][0] if "train" in plan.tasks else Task("trial", "What is one and one?", (), "2")


def _remedy(reward: Reward) -> str:
    if reward.judge is not None:
        return "Give the key in spec.env or spec.secretRefs."
    return "Correct the name; a module of your own must be importable where the run is started."


def _tried(plan: Plan, loc: tuple[str | int, ...], reward: BoundReward) -> Iterator[Finding]:
    for trial in trials(plan.tasks["train"][0]):
        try:
            asyncio.run(value_of(reward, trial))
        except (UserError, InfrastructureError) as error:
            yield plan.refused((*loc, "name"), error, _FORM)
            return


async def _asked(reward: BoundReward, plan: Plan) -> float | None:
    """A judge's opinion of one answer."""
    judge = reward.function
    assert isinstance(judge, JudgeReward)
    try:
        return await judge(trials(_task(plan))[0])
    finally:
        await judge.model.close()


def trials(task: Task) -> Sequence[Trajectory]:
    """What a reward may meet: the right answer after a call that worked, and no answer after one that did not."""
    right, wrong = _begun(task, "trial-answered", None), _begun(task, "trial-unanswered", "bad_arguments")
    right.answer, right.status = task.reference, "answered"
    _say(right, str(task.reference))
    wrong.status = "rounds"
    return right, wrong


def _begun(task: Task, name: str, error: str | None) -> Trajectory:
    """The question, one call, and what came back."""
    trial = Agent(UnaskedModel(), NoTools()).start(task)
    trial.id = name
    for turn in trial.turns:
        turn.tokens, turn.mask, turn.logprobs = [0], [False], [0.0]
    _say(trial, "I read the text.").message.content.append(
        ToolCallBlock(id="call_1_1", name="OCR", arguments={"image": "img_1"})
    )
    said = "12" if error is None else "ERROR: there is no img_2."
    turn = trial.add("tool", ToolResultBlock(call_id="call_1_1", name="OCR", text=said, error=error))
    turn.tokens, turn.mask, turn.logprobs = [0], [False], [0.0]
    return trial


def _say(trial: Trajectory, text: str) -> Turn:
    turn = trial.add("assistant", TextBlock(text=text))
    turn.tokens, turn.mask, turn.logprobs, turn.finish = [0], [True], [-1.0], "stop"
    return turn
