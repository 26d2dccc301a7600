"""The agent loop: model, tools and limits, in rounds. Evaluation, synthesis, RL and serving all run this one."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from thinkimg.agent.formats import Call, Format, OpenThinkIMG, Parsed, Returned
from thinkimg.agent.prompts import Style, system_prompt
from thinkimg.agent.tools import Tools
from thinkimg.errors import InfrastructureError, ModelError, UserError
from thinkimg.image import Image, ImageDecodeError
from thinkimg.message import ImageBlock, TextBlock, ToolCallBlock, ToolResultBlock
from thinkimg.models.chat import ChatModel, ContextFull, QuestionRefused, Reply, SamplingParameters
from thinkimg.models.generator import NO_FILTERS, Filters
from thinkimg.pulse import PULSE
from thinkimg.trajectory import Task, Trajectory, Turn


@dataclass(frozen=True)
class Limits:
    """Attributes:
    rounds: how often the model may speak.
    tokens_per_turn, tokens: new tokens of a turn; tokens of the whole trajectory.
    seconds: without any sign of life in this process (`thinkimg.pulse`) after which the trajectory counts as hung,
        and is lost to the infrastructure. It never decides an answer.
    calls_per_turn: more calls in one turn are refused with an observation.
    """

    rounds: int = 6
    tokens_per_turn: int = 512
    tokens: int = 32_768
    seconds: float = 600.0
    calls_per_turn: int = 8


class Agent:
    """Model + tools + limits.

    Args:
        prompt, words: see `thinkimg.agent.prompts.system_prompt`.
        filters: what narrows the distribution that the model's tokens are drawn from.
        check: raises `ModelError` for a turn that parses, and is still not to be.
    """

    def __init__(
        self,
        model: ChatModel,
        tools: Tools,
        limits: Limits | None = None,
        format: Format | None = None,
        prompt: Style = "full",
        words: str | None = None,
        filters: Filters = NO_FILTERS,
        check: Callable[[Parsed], None] | None = None,
    ) -> None:
        self.model = model
        self.tools = tools
        self.limits = limits or Limits()
        self.format = format or OpenThinkIMG()
        self.filters = filters
        self.check = check
        self.system = system_prompt(tools.schemas.values(), self.format, prompt, words)

    def start(self, task: Task) -> Trajectory:
        """The trajectory before the model's first turn."""
        trajectory = Trajectory(question=task.question, reference=task.reference, meta={**task.meta, "task": task.id})
        trajectory.add("system", TextBlock(text=self.system))
        blocks = [
            TextBlock(text=part) if isinstance(part, str) else ImageBlock(handle=trajectory.add_image(part))
            for part in task.parts
        ]
        trajectory.add("user", *blocks)
        return trajectory

    async def run(self, task: Task, seed: int = 0, temperature: float = 1.0) -> Trajectory:
        """Run one episode. The model's faults become observations; infrastructure faults end it with status
        `infrastructure`, and a model that does not take this conversation with `refused`, either with the reason in
        `meta["error"]`; bugs are raised.

        Raises:
            UserError: a picture that cannot be decoded.
        """
        return await self.resume(self.start(task), seed, temperature)

    async def resume(self, trajectory: Trajectory, seed: int = 0, temperature: float = 1.0) -> Trajectory:
        """Go on with a conversation whose last turn is not the model's, in place, as `run` does."""
        limits = self.limits
        sampling = SamplingParameters(temperature, limits.tokens_per_turn, limits.tokens, filters=self.filters)
        began = time.monotonic()
        try:
            async with PULSE.unless_hung(self.limits.seconds):
                await self._rounds(trajectory, sampling, seed)
        except ContextFull:
            trajectory.status = "tokens"
        except ImageDecodeError as error:
            where = f"task {trajectory.meta.get('task', trajectory.id)}"
            raise UserError(f"a picture cannot be shown to the model: {error}", where) from error
        except QuestionRefused as error:
            trajectory.status = "refused"
            trajectory.meta |= {"error": str(error), "refusal": error.reason}
        except InfrastructureError as error:
            trajectory.status = "infrastructure"
            trajectory.meta["error"] = str(error)
            if error.retry_after:
                trajectory.meta["retry_after"] = error.retry_after
        trajectory.seconds = time.monotonic() - began
        return trajectory

    async def _rounds(self, trajectory: Trajectory, sampling: SamplingParameters, seed: int) -> None:
        for number in range(1, self.limits.rounds + 1):
            began = time.monotonic()
            reply = await self._reply(trajectory, sampling, (seed + number * 0x9E3779B97F4A7C15) % 2**63)
            PULSE.beat()
            turn = append_reply(trajectory, reply)
            turn.seconds = time.monotonic() - began
            try:
                parsed = self._parse(reply)
            except ModelError as error:
                trajectory.meta["malformed"] = trajectory.meta.get("malformed", 0) + 1
                if number < self.limits.rounds:
                    trajectory.add("tool", TextBlock(text=f"ERROR: {error}"))
                continue
            if parsed.answer is not None:
                trajectory.answer = parsed.answer
                trajectory.status = "answered"
                return
            calls = self._record_calls(turn, number, parsed)
            if number < self.limits.rounds:  # a last round's calls would have no reader
                await self._observe(trajectory, calls)
        trajectory.status = "rounds"

    async def _reply(self, trajectory: Trajectory, sampling: SamplingParameters, seed: int) -> Reply:
        """The model's next turn. Pictures of its own calls that it is refused for are its mistake: it reads that in
        their place, and is asked again."""
        try:
            return await self.model.reply(trajectory, sampling, seed)
        except QuestionRefused as error:
            if error.reason == "content" or not hide_pictures(trajectory, str(error)):
                raise
        return await self.model.reply(trajectory, sampling, seed)

    def _parse(self, reply: Reply) -> Parsed:
        if reply.finish == "length":
            raise ModelError(
                f"Your reply was cut off after {self.limits.tokens_per_turn} tokens. Be shorter.", kind="malformed_call"
            )
        parsed = self.format.parse(reply.text)
        if len(parsed.calls) > self.limits.calls_per_turn:
            raise ModelError(
                f"{len(parsed.calls)} calls in one turn; at most {self.limits.calls_per_turn} are run.",
                kind="malformed_call",
            )
        if self.check is not None:
            self.check(parsed)
        return parsed

    def _record_calls(self, turn: Turn, number: int, parsed: Parsed) -> list[ToolCallBlock]:
        calls = [
            ToolCallBlock(id=f"call_{number}_{index}", name=call.name, arguments=call.arguments)
            for index, call in enumerate(parsed.calls, start=1)
        ]
        turn.message.content.extend(calls)
        return calls

    async def _observe(self, trajectory: Trajectory, calls: list[ToolCallBlock]) -> None:
        """Run the calls in parallel and append what came back, in the order of the calls."""
        began = time.monotonic()
        running = [asyncio.ensure_future(self._call(call, trajectory)) for call in calls]
        try:
            outcomes = await asyncio.gather(*running)
        except BaseException:  # the episode is over: nobody waits for the other calls
            for call in running:
                call.cancel()
            raise
        returned = [
            Returned(block, tuple(trajectory.add_image(image) for image in images)) for block, images in outcomes
        ]
        turn = trajectory.add("tool", *self.format.observation(returned))
        turn.seconds = time.monotonic() - began

    async def _call(self, call: ToolCallBlock, trajectory: Trajectory) -> tuple[ToolResultBlock, tuple[Image, ...]]:
        began = time.monotonic()
        try:
            outcome = await self.tools.call(call.name, call.arguments, trajectory.images)
            for image in (one for one in outcome.result.images if one.too_thin):
                size = f"{image.width}x{image.height} pixels"
                raise ModelError(f"{call.name}: the result is too thin to look at: {size}.", kind="refused")
        except ModelError as error:
            elapsed = time.monotonic() - began
            block = ToolResultBlock(
                call_id=call.id, name=call.name, text=f"ERROR: {error}", error=error.kind, seconds=elapsed
            )
            return block, ()
        finally:
            PULSE.beat()
        result = outcome.result
        block = ToolResultBlock(
            call_id=call.id,
            name=call.name,
            text=result.text,
            data=result.data,
            seconds=time.monotonic() - began,
            cached=outcome.cached,
        )
        return block, result.images


def hide_pictures(trajectory: Trajectory, reason: str) -> bool:
    """Put the reason in the place of the pictures that tools returned last; whether there were any. What a model has
    seen already stays."""
    last = trajectory.turns[-1]
    if last.role != "tool" or last.tokens is not None or not last.message.images:
        return False
    result: ToolResultBlock | None = None
    for number, block in enumerate(last.message.content):
        if isinstance(block, ToolResultBlock):
            result = block
        elif isinstance(block, ImageBlock):
            image = trajectory.images[block.handle]
            said = f" ERROR: this picture of {image.width}x{image.height} pixels cannot be shown to you: {reason}."
            last.message.content[number] = TextBlock(text=said)
            if result is not None:
                result.error = "refused"
    return True


def append_reply(trajectory: Trajectory, reply: Reply) -> Turn:
    """Store the reply: the tokens of the turns before it that had none, and its own turn."""
    if reply.context is not None:
        without = [turn for turn in trajectory.turns if turn.tokens is None]
        for turn, tokens in zip(without, reply.context, strict=True):
            turn.tokens, turn.mask, turn.logprobs = tokens, [False] * len(tokens), [0.0] * len(tokens)
    turn = trajectory.add("assistant", TextBlock(text=reply.text))
    turn.tokens, turn.mask, turn.logprobs = reply.tokens, reply.mask, reply.logprobs
    turn.finish = reply.finish
    return turn


__all__ = ["Agent", "Call", "Limits", "append_reply"]
