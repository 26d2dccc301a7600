"""All checks, in an order in which later ones use what earlier ones found."""

import asyncio

from thinkimg.jobs.preflight.data import check_data
from thinkimg.jobs.preflight.disk import check_disk
from thinkimg.jobs.preflight.endpoints import answers, planners
from thinkimg.jobs.preflight.findings import Finding, Plan
from thinkimg.jobs.preflight.models import check_model, known_model, loads_model
from thinkimg.jobs.preflight.rewards import check_rewards
from thinkimg.jobs.preflight.tools import check_chains, check_tools
from thinkimg.jobs.preflight.training import check_training


def check(plan: Plan, here: bool = True) -> list[Finding]:
    """Everything that is wrong with what is to run.

    Args:
        here: the stages run on this machine, so that what it has (packages, GPUs, room, tools) counts as well.
    """
    found = [*check_data(plan)]
    found += check_chains(plan)
    known, problems = known_model(plan) if loads_model(plan) else (None, [])
    found += problems
    if known is not None:
        found += check_model(plan, known)
    wrong, judges = check_rewards(plan)
    found += [*wrong, *asyncio.run(answers(plan, [*planners(plan), *judges]))]
    if known is not None and here:
        found += [*check_training(plan, known), *check_disk(plan, known)]
    return [*found, *check_tools(plan)] if here else found
