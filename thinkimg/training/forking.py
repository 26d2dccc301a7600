"""Sampling a tool call again from what was said before it.

Where every rollout of a question that called a tool went wrong, plain GRPO teaches the model not to call. AXPO (arXiv
2605.28774) keeps the thought and samples the call and all that follows again. Here one such thought becomes part of the
prompt, and a whole new group is sampled from it: its baseline is that of the same state, and the loss is taken on what
was sampled anew only.
"""

import bisect
import copy
import re
from dataclasses import dataclass, replace

from thinkimg.agent.agent import Agent
from thinkimg.errors import UserError
from thinkimg.models.chat import ContextFull, Family, Reply, SamplingParameters, TokenModel
from thinkimg.models.generator import GenerationRequest
from thinkimg.trajectory import Trajectory, Turn

_CALL_BEGINS = re.compile(r'"actions"\s*:\s*\[|<tool_call>')
"""Where a thought ends and calls begin, in the syntaxes of `thinkimg.agent.formats`."""


@dataclass(frozen=True)
class Fork:
    """A state to go on from: a conversation up to the model's turn, and how that turn begins."""

    before: Trajectory
    prefix: tuple[int, ...]


def fork_of(trajectory: Trajectory, family: Family) -> Fork | None:
    """The state before the first call of a trajectory with tokens; None without a call, or where the model said nothing
    before it."""
    number = next((n for n, turn in enumerate(trajectory.turns) if turn.message.tool_calls), None)
    if number is None:
        return None
    turn = trajectory.turns[number]
    begins = _CALL_BEGINS.search(turn.message.text)
    own = [token for token, flag in zip(turn.tokens or (), turn.mask or (), strict=True) if flag]
    if begins is None:
        return None
    kept = bisect.bisect_right(range(len(own)), begins.end(), key=lambda n: len(family.decode(own[: n + 1])))
    if kept == 0:
        return None
    turns = [_given(turn) for turn in trajectory.turns[:number]]
    shown = {name for turn in turns for name in turn.message.images}
    before = Trajectory(
        question=trajectory.question,
        reference=trajectory.reference,
        turns=turns,
        images={name: image for name, image in trajectory.images.items() if name in shown},
        meta={**trajectory.meta, "fork_of": trajectory.id},
    )
    return Fork(before, tuple(own[:kept]))


def _given(turn: Turn) -> Turn:
    """The turn as part of a prompt: no token of it is the model's own any more."""
    own = turn.mask or []
    logprobs = None if turn.logprobs is None else [0.0] * len(own)
    return turn.model_copy(update={"mask": [False] * len(own), "logprobs": logprobs})


async def continue_fork(agent: Agent, fork: Fork, seed: int, temperature: float) -> Trajectory:
    """Go on from a fork, as `Agent.run` goes on from a question."""
    trajectory = fork.before.model_copy(deep=True)
    trajectory.id = Trajectory(question="").id
    continuing = copy.copy(agent)
    continuing.model = _Begun(token_model(agent), fork.prefix, trajectory.rounds)
    continuing.limits = replace(agent.limits, rounds=agent.limits.rounds - trajectory.rounds)
    return await continuing.resume(trajectory, seed, temperature)


def token_model(agent: object) -> TokenModel:
    """The model of an agent whose trajectories can be forked.

    Raises:
        UserError: its model gives no tokens, or it is no `Agent`.
    """
    if isinstance(agent, Agent) and isinstance(agent.model, TokenModel):
        return agent.model
    raise UserError("forking needs an Agent with a model that gives tokens", "grpo.forkGroups")


class _Begun:
    """A model whose turn after `rounds` others begins with `prefix`; that part is not its own (masked)."""

    def __init__(self, model: TokenModel, prefix: tuple[int, ...], rounds: int) -> None:
        self.model, self.prefix, self.rounds = model, list(prefix), rounds

    async def reply(self, trajectory: Trajectory, sampling: SamplingParameters, seed: int) -> Reply:
        if trajectory.rounds > self.rounds:
            return await self.model.reply(trajectory, sampling, seed)
        family = self.model.family
        tokens = [*trajectory.tokens, *self.prefix]
        room = min(sampling.max_tokens - len(self.prefix), sampling.max_context_tokens - len(tokens))
        room -= len(family.closing_ids)
        if room < 1:
            raise ContextFull(f"{len(tokens)} tokens of {sampling.max_context_tokens} are used")
        request = GenerationRequest(
            tokens, trajectory.ordered_images, room, sampling.temperature, seed, filters=sampling.filters
        )
        made = await self.model.generator.generate(request)
        closing = list(family.closing_ids) if made.finish == "length" else []
        return Reply(
            text=family.decode([*self.prefix, *made.tokens]),
            finish=made.finish,
            context=[],
            tokens=[*self.prefix, *made.tokens, *closing],
            mask=[False] * len(self.prefix) + [True] * len(made.tokens) + [False] * len(closing),
            logprobs=[0.0] * len(self.prefix) + made.logprobs + [0.0] * len(closing),
            prompt_tokens=len(tokens),
            completion_tokens=len(made.tokens),
        )
