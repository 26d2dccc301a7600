"""Models behind addresses that a stage will ask: each is asked once, all at the same time."""

import asyncio
import os
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass

from PIL import Image as Pillow

from thinkimg.api import Planner
from thinkimg.api.pod_contract import Variable
from thinkimg.errors import InfrastructureError, UserError
from thinkimg.image import Image
from thinkimg.jobs.environment import environment_of_stage
from thinkimg.jobs.preflight.findings import Finding, Loc, Plan, block_of
from thinkimg.message import ImageBlock, TextBlock
from thinkimg.models.api import ApiModel
from thinkimg.models.chat import ContextFull, QuestionRefused, SamplingParameters
from thinkimg.trajectory import Trajectory

SECONDS = 25.0
"""For each of two attempts."""
_PICTURE = (96, 96)
_REMEDY = "Start the endpoint, or correct address, name and key."


@dataclass(frozen=True)
class Question:
    """Something to ask, and which field says of whom."""

    loc: Loc
    answer: Awaitable[object]


def planners(plan: Plan) -> list[Question]:
    """One for each planner, with a picture, as the stage will ask it."""
    asked = []
    for index, stage in plan.stages():
        if stage.synthesize and stage.synthesize.planner.model is not None:
            loc = block_of(index, stage, "planner", "model")
            asked.append(Question(loc, _ask(plan, stage.name, stage.synthesize.planner)))
    return asked


async def _ask(plan: Plan, stage: str, planner: Planner) -> None:
    endpoint = planner.model
    assert endpoint is not None
    key = os.environ.get(Variable.PLANNER_KEY)  # in a pod
    if key is None and endpoint.secret_ref is not None:
        key = environment_of_stage(plan.job.spec, stage, plan.secrets).get(Variable.PLANNER_KEY)
    model = ApiModel(endpoint.base_url, endpoint.name, key, timeout_seconds=SECONDS, retries=1)
    trial = Trajectory(question="")
    picture = trial.add_image(Image.from_pixels(Pillow.new("RGB", _PICTURE, "white")))
    trial.add("user", ImageBlock(handle=picture), TextBlock(text="Which colour is this picture? Say one word."))
    try:
        await model.reply(trial, SamplingParameters(0.0, 16), seed=0)
    except (ContextFull, QuestionRefused) as full:
        raise UserError(f"it does not take one picture and one sentence: {full}") from full
    finally:
        await model.close()


async def answers(plan: Plan, questions: Sequence[Question]) -> list[Finding]:
    """What was wrong with those that were not answered."""
    outcomes = await asyncio.gather(*(question.answer for question in questions), return_exceptions=True)
    found = []
    for question, outcome in zip(questions, outcomes, strict=True):
        if isinstance(outcome, UserError | InfrastructureError):
            found.append(plan.refused(question.loc, outcome, _REMEDY))
        elif isinstance(outcome, BaseException):
            raise outcome
    return found
