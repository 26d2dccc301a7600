"""`ApiModel`: a `ChatModel` behind any OpenAI-compatible `/chat/completions` endpoint. Planner and evaluation use it.

Its replies have no tokens, so their trajectories can be scored and shown, but not trained on as they are: SFT encodes
their texts itself, GRPO refuses them.
"""

import asyncio
import base64
import random
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from thinkimg.errors import InfrastructureError, UserError
from thinkimg.image import Image
from thinkimg.message import ImageBlock, Message, TextBlock, ToolResultBlock
from thinkimg.models.chat import ContextFull, QuestionRefused, Reply, SamplingParameters
from thinkimg.models.connections import Connections
from thinkimg.refusals import Complaint
from thinkimg.replies import EmptyReply, Filtered, read_reply
from thinkimg.trajectory import Trajectory

MOST_BACKOFF_SECONDS = 30.0


@dataclass
class Usage:
    """Totals over the life of an `ApiModel`. `cost` is what the endpoint itself says."""

    replies: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0

    def add(self, reply: Reply) -> None:
        self.replies += 1
        self.prompt_tokens += reply.prompt_tokens
        self.completion_tokens += reply.completion_tokens
        self.cost += reply.cost


class _Pace:
    """When the next request may be sent: evenly spread over a minute, and not while the endpoint asked for a pause."""

    def __init__(self, requests_per_minute: float | None) -> None:
        self.gap = 60 / requests_per_minute if requests_per_minute else 0.0
        self.free_at = 0.0

    async def turn(self) -> None:
        now = time.monotonic()
        start = max(now, self.free_at)
        self.free_at = start + self.gap
        if start > now:
            await asyncio.sleep(start - now)

    def pause(self, seconds: float) -> None:
        self.free_at = max(self.free_at, time.monotonic() + seconds)


class _Passing(Exception):
    """An attempt failed in a way that the next one may not.

    Attributes:
        wait: what the endpoint asked for, in seconds.
        empty: there was an answer with nothing in it: to the last attempt that is a refusal.
    """

    def __init__(self, reason: str, wait: float = 0.0, empty: bool = False) -> None:
        super().__init__(reason)
        self.wait = wait
        self.empty = empty


class _Proof:
    """Whether the endpoint answers with these settings at all: seen from an answer, else from one question of text."""

    def __init__(self) -> None:
        self.answered = False
        self._asking: asyncio.Task[bool] | None = None

    async def found(self, ask: Callable[[], Coroutine[Any, Any, bool]]) -> bool:
        """Those who want to know at the same time wait for the same question."""
        if not self.answered:
            if self._asking is None or self._asking.get_loop() is not asyncio.get_running_loop():
                self._asking = asyncio.ensure_future(ask())
            asking = self._asking
            try:
                self.answered = await asyncio.shield(asking)
            finally:
                if asking.done() and self._asking is asking:
                    self._asking = None
        return self.answered


@dataclass
class ApiModel:
    """Args:
    base_url: up to and without `/chat/completions`, such as `https://api.openai.com/v1`.
    model: the endpoint's name of the model.
    api_key: sent as a bearer token; never logged.
    timeout_seconds: of one attempt. An endpoint that asks to wait longer than this is given up.
    retries: further attempts after 429, 5xx, a broken connection or a time-out.
    max_concurrency: requests under way at once; others wait.
    requests_per_minute: at most so many, evenly spread; None: no limit. When the endpoint says 429 with `Retry-After`,
        all requests wait so long, not only the one that was refused.
    extra: further fields of the request body, stronger than ours; None leaves a field out (some models refuse `seed`
        or `max_tokens`).
    backoff_seconds: the first pause is drawn from 0 to this; each further one from twice that range.

    `SamplingParameters.max_context_tokens` cannot be kept here, where nothing counts tokens: the endpoint's own limit
    ends a trajectory instead.
    """

    base_url: str
    model: str
    api_key: str | None = field(default=None, repr=False)
    timeout_seconds: float = 120.0
    retries: int = 4
    max_concurrency: int = 16
    requests_per_minute: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    backoff_seconds: float = 1.0
    usage: Usage = field(default_factory=Usage, init=False)

    def __post_init__(self) -> None:
        if not _is_address(self.base_url):
            raise UserError(f"{self.base_url!r} is no http(s) address, such as https://host/v1", "base_url")
        if self.base_url.rstrip("/").endswith("/chat/completions"):
            raise UserError("leave out /chat/completions: it is added", "base_url")
        if self.api_key is not None:
            self.api_key = self.api_key.strip()  # keys come from files with a line's end
            if not self.api_key.isascii() or not self.api_key.isprintable():
                raise UserError("the key holds characters that no HTTP header can carry", "api_key")
        self._url = self.base_url.rstrip("/") + "/chat/completions"
        self._connections = Connections(self.api_key, self.timeout_seconds, self.max_concurrency)
        self._pace = _Pace(self.requests_per_minute)
        self._proof = _Proof()

    async def reply(self, trajectory: Trajectory, sampling: SamplingParameters, seed: int) -> Reply:
        """See `ChatModel.reply`.

        Raises:
            InfrastructureError: the endpoint still fails after all retries.
            UserError: it refuses key, address, model or a field of the request.
            ContextFull: the conversation is longer than the model reads.
            QuestionRefused: the endpoint answers others, but not this one.
            ImageDecodeError: a picture is broken.
        """
        body = {
            "model": self.model,
            "messages": await asyncio.to_thread(to_messages, trajectory),  # pictures may have to be encoded anew
            "temperature": sampling.temperature,
            "max_tokens": sampling.max_tokens,
            "seed": seed % 2**31,  # several servers take 32 bits
            **sampling.filters.changed(),
        }
        body = {
            name: value for name, value in (body | dict(self.extra) | dict(sampling.extra)).items() if value is not None
        }
        client, gate = self._connections.open()
        async with gate:
            return await self._with_retries(client, body)

    async def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        await self._connections.close()

    async def _with_retries(self, client: httpx.AsyncClient, body: dict[str, Any]) -> Reply:
        for attempt in range(self.retries + 1):
            await self._pace.turn()
            try:
                return await self._attempt(client, body)
            except _Passing as failure:
                if attempt == self.retries or failure.wait > self.timeout_seconds:
                    raise self._given_up(failure, attempt + 1) from failure
                self.usage.retries += 1
                longest = min(MOST_BACKOFF_SECONDS, self.backoff_seconds * 2**attempt)
                self._pace.pause(failure.wait)
                await asyncio.sleep(failure.wait + random.uniform(0, longest))
        raise AssertionError("the last attempt returns or raises")

    def _given_up(self, failure: _Passing, attempts: int) -> Exception:
        if failure.empty and self._proof.answered:
            return QuestionRefused(str(failure))
        error = InfrastructureError(f"{self._url}: {failure} ({attempts} attempt{'s' if attempts > 1 else ''})")
        error.retry_after = failure.wait
        return error

    async def _attempt(self, client: httpx.AsyncClient, body: dict[str, Any]) -> Reply:
        found = await self._ask(client, body)
        if isinstance(found, Complaint):
            raise await self._refusal(found, client, body)
        self._proof.answered = True
        self.usage.add(found)
        return found

    async def _ask(self, client: httpx.AsyncClient, body: dict[str, Any]) -> Reply | Complaint:
        """One request. Raises `_Passing`, `QuestionRefused`."""
        try:
            # httpx limits each read; a server that drips bytes is limited here.
            response = await asyncio.wait_for(client.post(self._url, json=body), self.timeout_seconds)
        except (httpx.TimeoutException, TimeoutError) as error:
            raise _Passing(f"no reply within {self.timeout_seconds:g} s") from error
        except httpx.RequestError as error:
            raise _Passing(f"{type(error).__name__}: {error}") from error
        if response.status_code != 200:
            return Complaint.of(response)
        try:
            found = read_reply(response)
        except Filtered as error:
            raise QuestionRefused(str(error), "content") from error
        except EmptyReply as error:
            raise _Passing(f"{error}: {response.text[:200]!r}", empty=True) from error
        except ValueError as error:
            raise _Passing(f"the response is no chat completion: {response.text[:200]!r}") from error
        return found if isinstance(found, Complaint) else Reply(**vars(found))

    async def _refusal(self, complaint: Complaint, client: httpx.AsyncClient, body: dict[str, Any]) -> Exception:
        """Whose a refusal is. One that does not say is the question's, if the endpoint answers another."""
        kind = complaint.kind
        if kind == "retry":
            return _Passing(str(complaint), complaint.wait)
        if kind == "context":
            return ContextFull(complaint.said)
        if kind == "unknown" and await self._proof.found(lambda: self._answers_text(client, body)):
            kind = "question"
        if kind == "question" or (kind == "pictures" and self._proof.answered):
            return QuestionRefused(str(complaint), complaint.reason)
        return self._misconfigured(complaint)

    async def _answers_text(self, client: httpx.AsyncClient, body: dict[str, Any]) -> bool:
        """Whether one question without pictures is answered with the same settings."""
        try:
            found = await self._ask(client, body | {"messages": [{"role": "user", "content": "Say yes."}]})
        except QuestionRefused:  # by a filter behind a model that answers
            return True
        if isinstance(found, Complaint) and found.kind == "retry":
            raise _Passing(str(found), found.wait)
        return isinstance(found, Reply)

    def _misconfigured(self, complaint: Complaint) -> UserError:
        status = complaint.status
        said = f"{self._url} answers {status}: {complaint.said}."
        if status in (401, 403):
            remedy = "Give a key that may use this model" if self.api_key else "Give a key: none was sent"
            return UserError(f"{said} {remedy}.", "api_key")
        if complaint.kind == "pictures":
            return UserError(f"{said} Name a model that reads pictures.", "model")
        if status == 404:
            return UserError(f"{said} Check the model's name ({self.model!r}) and base_url.", "model")
        if status in (402, 429):
            return UserError(f"{said} Nothing is answered before it is paid for.", "api_key")
        if status == 400:
            name = complaint.param or "<field>"
            return UserError(
                f"{said} `extra` can set a field of the request, or leave it out with null.", f"extra.{name}"
            )
        return UserError(f"{said} Check the address.", "base_url")


def to_messages(trajectory: Trajectory) -> list[dict[str, Any]]:
    """The conversation as the API has it: pictures as data URIs in their places, tools' turns as the user's.

    Calls stay in the assistant's text, in whatever format the agent uses, so any endpoint can continue them.
    """
    return [_message(turn.message, trajectory.images) for turn in trajectory.turns]


def _message(message: Message, images: Mapping[str, Image]) -> dict[str, Any]:
    role = "user" if message.role == "tool" else message.role
    if not message.images:
        return {"role": role, "content": message.text}
    parts: list[dict[str, Any]] = []
    for block in message.content:
        if isinstance(block, ImageBlock):
            parts.append({"type": "image_url", "image_url": {"url": data_uri(images[block.handle])}})
        elif isinstance(block, TextBlock | ToolResultBlock):
            if parts and parts[-1]["type"] == "text":
                parts[-1]["text"] += block.text
            else:
                parts.append({"type": "text", "text": block.text})
    return {"role": role, "content": parts}


def _is_address(text: str) -> bool:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        return False
    return url.scheme in ("http", "https") and bool(url.host)


def data_uri(image: Image) -> str:
    """As endpoints take it. Raises `ImageDecodeError` for a broken picture."""
    sent = image.as_sent()
    return f"data:{sent.media_type};base64,{base64.b64encode(sent.data).decode()}"
