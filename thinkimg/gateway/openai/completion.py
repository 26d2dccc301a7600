"""One completion: a conversation, the loop that answers it, and the documents that tell of it."""

import asyncio
import json
import logging
import secrets
import time
from collections.abc import Mapping
from typing import Any

from thinkimg.agent.agent import Agent
from thinkimg.errors import InfrastructureError
from thinkimg.gateway.callers import Caller
from thinkimg.gateway.core import Core
from thinkimg.gateway.openai.conversation import Conversation
from thinkimg.gateway.openai.functions import Functions, HandedBack
from thinkimg.gateway.openai.models import ServedModel
from thinkimg.gateway.openai.request import ChatRequest
from thinkimg.gateway.refusals import refused_by_model
from thinkimg.message import ImageBlock, ToolResultBlock
from thinkimg.models.api import data_uri
from thinkimg.trajectory import Trajectory, Turn
from thinkimg.viewer.record import drawn

log = logging.getLogger(__name__)


class Completion:
    """A request being answered.

    Args:
        agent: its model is a `thinkimg.models.backends.Metered` one.
        functions: the caller's tools among the agent's.
    """

    def __init__(self, asked: ChatRequest, served: ServedModel, agent: Agent, functions: Functions) -> None:
        self.asked = asked
        self.served = served
        self.trajectory = Trajectory(question="")
        self._agent = agent
        self._functions = functions
        self._created = int(time.time())
        self._told = self._given = 0

    async def read(self, core: Core, caller: Caller) -> None:
        """Make the conversation of the request's messages. Raises `Refusal` 400 naming the message."""
        reader = Conversation(core, caller, self.served.format)
        self.trajectory = await reader.read(self.asked.messages, self._agent.system)
        self._told = self._given = len(self.trajectory.turns)

    async def run(self) -> None:
        """Raises `InfrastructureError`, `UserError`, `Refusal`; `TimeoutError`: it takes longer than callers wait."""
        temperature = 1.0 if self.asked.temperature is None else self.asked.temperature
        seed = secrets.randbelow(2**63) if self.asked.seed is None else self.asked.seed
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._agent.limits.seconds):
                await self._agent.resume(self.trajectory, seed, temperature)
        except HandedBack:
            self.trajectory.seconds = time.monotonic() - began
        self._raise_what_ended_it()

    def _raise_what_ended_it(self) -> None:
        meta, status = self.trajectory.meta, self.trajectory.status
        if status == "infrastructure":
            error = InfrastructureError(meta["error"])
            error.retry_after = meta.get("retry_after", 0.0)
            raise error
        if status == "refused":
            log.info("model %r refuses a conversation: %s", self.served.name, meta["error"])
            raise refused_by_model(meta["refusal"])
        if status == "tokens" and len(self.trajectory.turns) == self._given:  # it has not spoken: nothing was cut off
            raise refused_by_model("context")

    @property
    def answer(self) -> str:
        """Up to the first of the texts `stop`."""
        answer = self.trajectory.answer or ""
        ends = [at for text in self.asked.stop or () if (at := answer.find(text)) >= 0]
        return answer[: min(ends, default=len(answer))]

    @property
    def handed(self) -> list[dict[str, Any]]:
        """The calls of the caller's tools that the model ended with, as OpenAI's API has them."""
        calls = self._functions.handed(self.trajectory.turns[-1].message.tool_calls)
        return [
            {
                "id": f"call_{self.trajectory.id}_{number}",
                "type": "function",
                "function": {"name": name, "arguments": json.dumps(arguments)},
            }
            for number, (name, arguments) in enumerate(calls)
        ]

    @property
    def finish(self) -> str:
        """`length` for every limit, of rounds or of tokens."""
        if self.handed:
            return "tool_calls"
        return "stop" if self.trajectory.status == "answered" else "length"

    @property
    def usage(self) -> dict[str, int]:
        """Of all turns of the model, as OpenAI's API has them; `Metered` counted them."""
        used = self.trajectory.meta.get("usage", {})
        prompt, completion = used.get("prompt_tokens", 0), used.get("completion_tokens", 0)
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}

    @property
    def told_usage(self) -> dict[str, int] | None:
        """None where the model's endpoint counts nothing: a zero would be a lie."""
        return self.usage if self.usage["completion_tokens"] else None

    @property
    def spent_tokens(self) -> int:
        """What counts against the caller's quota: `usage`; where the model's endpoint counts nothing, as many as its
        turns may have had at most."""
        spoken = len(self.trajectory.turns) - self._given
        return self.usage["total_tokens"] or spoken * self._agent.limits.tokens_per_turn

    def document(self) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": self.answer, "refusal": None}
        if handed := self.handed:
            message |= {"content": None, "tool_calls": handed}
        choice = {"index": 0, "message": message, "finish_reason": self.finish, "logprobs": None}
        document = {**self._head("chat.completion"), "choices": [choice], "usage": self.told_usage}
        if self.asked.thinkimg.trace:
            document["thinkimg"] = self.extension()
        return document

    def chunk(self, delta: Mapping[str, Any], finish: str | None = None, **extra: Any) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        return {**self._head("chat.completion.chunk"), "choices": [choice], **extra}

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{self.trajectory.id}",
            "object": kind,
            "created": self._created,
            "model": self.served.name,
        }

    def extension(self, trace: bool = True) -> dict[str, Any]:
        """The reply's field `thinkimg`."""
        document: dict[str, Any] = {"status": self.trajectory.status, "seconds": round(self.trajectory.seconds, 3)}
        if trace:
            document["trace"] = self.new_trace()
        if self.asked.thinkimg.images:
            document["images"] = {handle: data_uri(image) for handle, image in self.trajectory.images.items()}
        return document

    @property
    def has_news(self) -> bool:
        """Whether a turn was added since the trace was last asked for."""
        return self.asked.thinkimg.trace and len(self.trajectory.turns) > self._told

    def new_trace(self) -> list[dict[str, Any]]:
        """What was added to the trajectory since this was last asked for; nothing if no trace is wanted."""
        if not self.asked.thinkimg.trace:
            return []
        new = self.trajectory.turns[self._told :]
        self._told += len(new)
        return [self._traced(turn) for turn in new]

    def _traced(self, turn: Turn) -> dict[str, Any]:
        """The turn, the sizes and hashes of its pictures, and, if wanted, what is to be drawn over those before."""
        entry = _traced(turn)
        pictures = {handle: self.trajectory.images[handle] for handle in turn.message.images}
        if pictures:
            entry["pictures"] = {
                handle: {"sha256": image.sha256, "width": image.width, "height": image.height}
                for handle, image in pictures.items()
            }
        if self.asked.thinkimg.overlays:
            for result in entry.get("results", ()):
                result["overlay"] = drawn(result["data"])
        return entry


def _traced(turn: Turn) -> dict[str, Any]:
    """A turn of the model with its calls, or one of the tools with their results."""
    message = turn.message
    entry: dict[str, Any] = {"role": message.role, "text": message.text, "seconds": round(turn.seconds, 3)}
    if message.tool_calls:
        entry["calls"] = [call.model_dump(exclude={"type"}) for call in message.tool_calls]
    results: list[dict[str, Any]] = []
    for block in message.content:
        if isinstance(block, ToolResultBlock):
            results.append({**block.model_dump(exclude={"type"}), "images": []})
        elif isinstance(block, ImageBlock) and results:
            results[-1]["images"].append(block.handle)
    return {**entry, "results": results} if results else entry
