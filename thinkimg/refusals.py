"""What an endpoint says instead of an answer, and whom it concerns: this question, the settings, or nobody.

OpenAI's API has statuses, codes and types for it; behind "OpenAI-compatible" stand a dozen servers with their own. They
are told apart by code, type and wording, in that order of trust. Every wording here was met in public: the table of
cases in `tests/support/evaluation/refusals.py` names where.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

import httpx

Kind = Literal["question", "context", "retry", "configuration", "pictures", "unknown"]
"""`question`: this one is refused. `context`: it is too long. `retry`: a later attempt may be answered.
`configuration`: no question would be answered. `pictures`: none that has a picture. `unknown`: it does not say."""
Reason = Literal["content", "picture", "size", "other"]
"""Why a question is refused: a content filter; a picture's kind, size, shape or number; too many bytes; not said."""

_PASSING = (408, 409, 425, 429, 502, 503, 504, 529)
_TELLING = ("code", "type", "status", "message", "msg", "reason", "reasons", "raw", "detail", "details", "errors")
_NESTED = ("error", "innererror", "metadata", "provider_specific_fields")
_LONGEST = 4000
"""Characters that are searched: some servers repeat the whole request."""


@dataclass(frozen=True)
class Complaint:
    """A refusal as it came.

    Attributes:
        status: of HTTP, or what stands for it in a body that came with 200.
        said: the message, shortened, for people.
        words: code, type and message, its own and those of whoever stands behind it.
        param: the field of the request that it names.
        wait: seconds after which it wants to be asked again; 0 where it does not say.
        structured: it is JSON, and so from the API itself rather than from a proxy before it.
    """

    status: int
    said: str
    words: str
    param: str = ""
    wait: float = 0.0
    structured: bool = True

    @classmethod
    def of(cls, response: httpx.Response) -> "Complaint":
        body = _json(response.text)
        text = response.text or response.reason_phrase
        return cls._made(response.status_code, body, text, _asked_wait(response.headers))

    @classmethod
    def inside(cls, body: Any) -> "Complaint":
        """The error object of a body that came with status 200."""
        error = _error(body)
        status = error.get("code", error.get("status_code"))
        text = str(status)
        known = int(text) if re.fullmatch("[45][0-9][0-9]", text) else 500
        return cls._made(known, body, json.dumps(body), 0.0)

    @classmethod
    def _made(cls, status: int, body: Any, text: str, wait: float) -> "Complaint":
        error = _error(body)
        words = " ".join(_leaves(error))[:_LONGEST] if error else text[:_LONGEST]
        said = str(error.get("message") or error.get("detail") or words or text)
        return cls(
            status,
            " ".join(said.split())[:300].rstrip("."),
            words.lower(),
            str(error.get("param") or ""),
            wait or _said_wait(text),
            bool(error),
        )

    @property
    def kind(self) -> Kind:
        """Whom it concerns. What only the status says comes last: 400 is everything, and 200 too."""
        if self.status == 401 or _QUOTA.search(self.words):
            return "configuration"
        if self.status == 429:  # of those, only a request that is too large for any minute is not for later
            return "context" if _LARGE.search(self.words) else "retry"
        if self.status in _PASSING and not (self.status == 502 and _CONTENT.search(self.words)):
            return "retry"
        for kind, pattern in _KINDS:
            if pattern.search(self.words):
                return kind
        return self._kind_of_status()

    def _kind_of_status(self) -> Kind:
        if self.status >= 500:
            return "retry"
        if self.status == 413:
            return "question"
        if self.status < 400 or self.status in (402, 404, 405) or (self.status == 403 and self.structured):
            return "configuration"
        of_messages = self.param.startswith(("messages", "prompt", "input"))
        return "configuration" if self.param and not of_messages else "unknown"

    @property
    def reason(self) -> Reason:
        """Of a refused question."""
        if _CONTENT.search(self.words):
            return "content"
        if _PICTURE.search(self.words) or _NO_PICTURES.search(self.words):
            return "picture"
        return "size" if self.status == 413 or _SIZE.search(self.words) else "other"

    def __str__(self) -> str:
        return f"status {self.status}: {self.said}"


def _any(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns))


_QUOTA = _any(
    "insufficient_quota", "credit balance is too low", "insufficient (credits|balance|funds)", "budget_exceeded",
    "budget has been exceeded", "exceededbudget", "billing_not_active", "billing hard limit", "account_deactivated",
)  # fmt: skip
"""Money. It comes with 400, 401, 402 and 429; waiting does not help."""
_SETTINGS = _any(
    "api key not valid", "api_key_invalid", "invalid_api_key", "incorrect api key", "model_not_found",
    "deploymentnotfound", "location is not supported", "unsupported_country", "unsupported_parameter",
    "unsupported parameter", "unknown_parameter", "unrecognized request argument", "extra inputs are not permitted",
    "extra_forbidden", "cannot be greater than max_model_len", "only support(s)? stream", "model.{0,80} does not exist",
)  # fmt: skip
_NO_PICTURES = _any(
    "no endpoints found that support image", "image inputs? (is|are) not supported", "not a multimodal model",
    "(does not|doesn't|do not|don't) support (image|vision|multimodal|multi-modal)", "mmproj",
    "images? (is|are) not supported (by|for|with) (this|the) (model|server)", "unknown variant .image_url.",
    "image_url is only supported by certain models",
)  # fmt: skip
"""A model without eyes. Where another question was answered this one has a picture and that one had none."""
_CONTENT = _any(
    "content[_ ]?filter", "content[_ ]?policy", "contentpolicy", "responsibleai", "content management policy",
    "data_?inspection", "inappropriate content", "invalid_prompt", "flagged", "requires moderation",
    "moderation_blocked", "usage polic", "prohibited_content", "safety (system|filter|setting|reason|check)",
    "blocked by.{0,40}(policy|safety|guardrail)", "sensitive (content|word|information)", "guardrail", "blocklist",
    "high risk",
)  # fmt: skip
_CONTEXT = _any(
    "context_length", "exceed_context", "contextwindow", "context[ -](length|window|size|limit)",
    r"maximum (model|context|allowed|input|prompt|sequence) (length|tokens)", "maximum number of tokens",
    "maximum allowed length", "prompt.{0,60} too (long|large)", "input.{0,20} is too long", "too many (input )?tokens",
    "longer than the (maximum model|model)", "input tokens exceed", "input length .{0,40}exceed", "max_model_len",
    "string_above_max_length", "reduce the length of the (messages|prompt|input)", "tokens exceed context",
    "max_tokens must be at least 1", "total number of tokens", "too many total text bytes",
)  # fmt: skip
_LARGE = _any("request too large", "tokens must be reduced")
"""More tokens than a minute has: every later attempt is refused as this one is."""
_TROUBLE = (
    "exceed|too (large|small|big|many|long|thin)|invalid|not valid|unsupported|not supported|could not|couldn't|cannot"
    "|unable|fail|corrupt|truncated|larger than|at least|at most|do not meet|does not match|unidentified|unreadable"
)
_PICTURE = _any(
    f"({_TROUBLE}).{{0,80}}(image|picture|bitmap)", f"(image|picture|bitmap).{{0,120}}({_TROUBLE})",
    "larger than factor", "aspect ratio", "failed to apply .{0,40}processor", "media[_ ]type", "limit[-_]mm[-_]per",
    "image_(parse|too|file|format)", "multimodal (data|item|input)",
)  # fmt: skip
_SIZE = _any(
    "request_too_large", "request (entity|body)? ?(is )?too large", "payload (is )?too large", "entity too large",
    "body.{0,20}too (large|big)", "exceeds the (maximum|allowed) size", "content length exceeded",
)  # fmt: skip
_KINDS: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    ("configuration", _SETTINGS),
    ("pictures", _NO_PICTURES),
    ("question", _CONTENT),
    ("context", _CONTEXT),
    ("context", _LARGE),
    ("question", _PICTURE),
    ("question", _SIZE),
)  # fmt: skip


# ---- what is read of a refusal ---------------------------------------------------------------------------------------


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _error(body: Any) -> Mapping[str, Any]:
    """The error object: OpenAI has it in `error`, vLLM had it bare, Gemini has it in a list, FastAPI calls it
    `detail`; several have a text."""
    if isinstance(body, list) and body:
        body = body[0]
    if not isinstance(body, Mapping):
        return {}
    error = body.get("error", body)
    return error if isinstance(error, Mapping) else {"message": str(error)}


def _leaves(value: Any, deep: int = 0) -> Iterator[str]:
    """The texts of an error that say what it is. Whatever else is in it may be the caller's own words."""
    if isinstance(value, Mapping) and deep < 6:
        for name, inner in value.items():
            if name in _TELLING or name in _NESTED:
                yield from _leaves(inner, deep + 1)
    elif isinstance(value, list) and deep < 6:
        for inner in value[:20]:
            yield from _leaves(inner, deep + 1)
    elif isinstance(value, str | int) and not isinstance(value, bool):
        yield str(value)


def _asked_wait(headers: httpx.Headers) -> float:
    """Seconds of `Retry-After` (a number or a date) or `Retry-After-Ms`; 0 without."""
    try:
        return max(0.0, float(headers["retry-after-ms"]) / 1000)
    except (KeyError, ValueError):
        pass
    value = headers.get("retry-after", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return 0.0


_AGAIN = re.compile(
    r'(?:(?:re)?try again in |retry in |"retryDelay": ?")(?:(\d+)m)?(\d+(?:\.\d+)?) ?(ms|s)', re.IGNORECASE
)


def _said_wait(text: str) -> float:
    """Seconds of "Please try again in 1m3.5s" or of Google's `retryDelay`, which stand in place of the header."""
    found = _AGAIN.search(text)
    if not found:
        return 0.0
    minutes, number, unit = found.groups()
    return 60 * int(minutes or 0) + float(number) / (1000 if unit.lower() == "ms" else 1)
