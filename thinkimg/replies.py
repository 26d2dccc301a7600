"""What endpoints send with status 200: a completion, a stream of its pieces, or a refusal in the place of either."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import httpx

from thinkimg.refusals import Complaint

_CUT_OFF = ("length", "max_tokens", "model_length")
_FILTERED = (
    "content_filter", "safety", "prohibited_content", "recitation", "blocklist", "spii", "refusal", "sensitive",
    "blocked", "image_safety", "image_prohibited_content", "guardrail_intervened",
)  # fmt: skip
"""OpenAI's word, Gemini's own ones (its endpoint does not translate them), Anthropic's, Zhipu's, Bedrock's."""


@dataclass(frozen=True)
class Completion:
    """What a model said.

    Attributes:
        finish: `stop` or `length` (cut off by the limit).
        prompt_tokens, completion_tokens: 0 if the endpoint does not say.
        cost: in money, as the endpoint itself says; else 0.
    """

    text: str
    finish: Literal["stop", "length"]
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0


class EmptyReply(ValueError):
    """A completion without a choice or without a message: how some filters refuse, and how some servers fail."""


class Filtered(Exception):
    """A filter of what is asked or answered, or the model itself, refuses this conversation."""


def read_reply(response: httpx.Response) -> Completion | Complaint:
    """The reply, or what stands in its place.

    Raises:
        EmptyReply: there is no choice in it.
        Filtered: a filter has cut it off, or the model itself refused in the field for that.
        ValueError: it is no chat completion.
    """
    body = _body(response)
    if not isinstance(body, Mapping):
        raise ValueError("no object")
    if body.get("error") and not body.get("choices"):
        return Complaint.inside(body)
    choice = _choice(body)
    finish = choice.get("finish_reason")
    if choice.get("error") or (isinstance(finish, Mapping) and finish.get("message")):
        return Complaint.inside({"error": choice.get("error") or finish})
    ending = str(finish.get("type") if isinstance(finish, Mapping) else finish or "stop").lower()
    if ending in ("error", "abort"):
        raise ValueError(f"the reply ended with {ending}")
    _refuse_filtered(ending, choice)
    return _reply(choice, ending, body)


def _choice(body: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = body.get("choices")
    if choices in ([], None):
        if _blocked(body):
            raise Filtered("the endpoint's filter blocked the question")
        if "choices" not in body and "id" not in body:
            raise ValueError("no choices")
        raise EmptyReply("a completion without a choice")
    choice = choices[0] if isinstance(choices, list) else None
    if not isinstance(choice, Mapping):
        raise ValueError("choices are no list of objects")
    return choice


def _blocked(body: Mapping[str, Any]) -> bool:
    """Azure and Gemini say beside the missing choices what their filters found."""
    found = {
        name: body[name] for name in ("prompt_filter_results", "promptFeedback", "prompt_feedback") if name in body
    }
    text = json.dumps(found).replace(" ", "")
    return '"filtered":true' in text or "blockReason" in text or "block_reason" in text


def _refuse_filtered(ending: str, choice: Mapping[str, Any]) -> None:
    message = choice.get("message")
    refusal = message.get("refusal") if isinstance(message, Mapping) else None
    if ending.partition(":")[0].strip() in _FILTERED:
        raise Filtered(f"the reply was filtered: finish_reason {ending}")
    if refusal and not (isinstance(message, Mapping) and message.get("content")):
        raise Filtered(f"the model refuses: {str(refusal)[:200]}")


def _reply(choice: Mapping[str, Any], ending: str, body: Mapping[str, Any]) -> Completion:
    message = choice.get("message")
    if message is None:
        raise EmptyReply("a choice without a message")
    usage = body.get("usage")
    usage = usage if isinstance(usage, Mapping) else {}
    try:
        return Completion(
            _text(message.get("content")),
            "length" if ending in _CUT_OFF else "stop",
            prompt_tokens=int(usage.get("prompt_tokens") or 0),
            completion_tokens=int(usage.get("completion_tokens") or 0),
            cost=float(usage.get("cost") or 0.0),
        )
    except (TypeError, AttributeError) as error:
        raise ValueError(str(error)) from error


def _text(content: Any) -> str:
    text = content or ""
    if not isinstance(text, str):  # parts
        text = "".join(part.get("text") or "" for part in text)
    return text.encode("utf-8", "replace").decode()  # half a surrogate pair could be neither stored nor sent


# ---- streams ---------------------------------------------------------------------------------------------------------


def _body(response: httpx.Response) -> Any:
    """JSON, or the pieces of a stream put together: some endpoints stream whether or not they are asked to."""
    text = response.text.lstrip()
    if text.startswith(("data:", "event:", ":")) or "event-stream" in response.headers.get("content-type", ""):
        return _joined(text)
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _joined(stream: str) -> Mapping[str, Any]:
    """One completion from server-sent events. An error among them is what the stream says."""
    text, refusal, usage, finish, seen = "", "", None, None, False
    for event in _events(stream):
        if event.get("error"):
            return {"error": event["error"]}
        usage = event.get("usage") or usage
        for choice in event.get("choices") or ():
            if choice.get("index"):
                continue
            delta = choice.get("delta") or choice.get("message") or {}
            text += _text(delta.get("content"))
            refusal += delta.get("refusal") or ""
            finish, seen = choice.get("finish_reason") or finish, True
    if seen and finish is None:
        raise ValueError("the stream broke off")
    choice = {"message": {"content": text, "refusal": refusal or None}, "finish_reason": finish}
    return {"id": "stream", "choices": [choice] if seen else [], "usage": usage}


def _events(stream: str) -> list[Mapping[str, Any]]:
    found = []
    for line in stream.split("\n"):
        data = line.strip().removeprefix("data:").strip()
        if not data.startswith("{"):  # names of events, comments, [DONE]
            continue
        event = json.loads(data)
        found.append(event)
    return found
