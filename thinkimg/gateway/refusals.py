"""What callers are told when something goes wrong: one problem, in the shape that each face's clients understand."""

import json
import logging
import math

from starlette.responses import Response

from thinkimg import wire
from thinkimg.errors import InfrastructureError, ModelError, UserError

log = logging.getLogger(__name__)


class Refusal(Exception):
    """A request that is answered with a problem."""

    def __init__(self, problem: wire.Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


def refuse(status: int, kind: str, detail: str, **extra: object) -> Refusal:
    """The family follows from the status: 4xx is the caller's doing, but for 408, 409 and 429, which pass."""
    family = "user" if 400 <= status < 500 and status not in (408, 409, 429) else "infrastructure"
    return Refusal(wire.Problem(status, "user" if family == "user" else "infrastructure", kind, detail, extra))


_REFUSED = {
    "content": (400, "content_filter", "a content filter before the model does not let this conversation pass"),
    "picture": (400, "invalid_image", "the model does not take a picture of it: its size, shape or kind, or so many"),
    "size": (413, "request_too_large", "the model does not take so many bytes"),
    "context": (400, "context_length_exceeded", "the conversation is longer than the model reads"),
}
"""Reason (`QuestionRefused.reason`; `context`) to OpenAI's status, code and words of ours."""


def refused_by_model(reason: str) -> Refusal:
    """What a caller is told whose conversation the model's endpoint does not take, or no longer."""
    unknown = (400, "refused", "the model does not take this request")
    status, code, detail = _REFUSED.get(reason, unknown)
    return refuse(status, code, detail, param="messages")


def problem_of(error: Exception) -> wire.Problem:
    """The problem behind a failed call of a tool or model; a bug is raised again. Callers do not learn what stands
    behind the gateway: addresses and the words of servers are for its log (`log_cause`)."""
    if isinstance(error, Refusal):
        return error.problem
    if isinstance(error, ModelError):
        return wire.Problem(404 if error.kind == "unknown_tool" else 422, "model", error.kind, str(error))
    if isinstance(error, TimeoutError):
        return wire.Problem(504, "infrastructure", "deadline", "no result within the time that the caller waits")
    if isinstance(error, InfrastructureError):
        detail = "no server behind the gateway has answered; its log says why"
        extra = {"retry_after_seconds": error.retry_after} if error.retry_after else {}
        return wire.Problem(503, "infrastructure", "unavailable", detail, extra)
    if isinstance(error, UserError):
        detail = "the gateway is not configured rightly; its log says how"
        return wire.Problem(502, "infrastructure", "misconfigured", detail)
    raise error


def log_cause(what: str, error: Exception) -> None:
    """Tell the operator what `problem_of` does not tell the caller."""
    if isinstance(error, UserError):
        log.error("%s: the configuration is wrong: %s", what, error)
    elif isinstance(error, InfrastructureError):
        log.warning("%s: %s", what, error)


def problem_response(problem: wire.Problem, face: str = "tools") -> Response:
    """As RFC 9457 wants it; for `chat` as OpenAI's clients do, for `openthinkimg` as the original's."""
    document: dict[str, object] = problem.as_document()
    media_type = wire.PROBLEM
    if face == "chat":
        document, media_type = {"error": openai_error(problem)}, wire.JSON
    elif face == "openthinkimg":
        document, media_type = {"text": problem.detail, "error_code": error_code(problem)}, wire.JSON
    return Response(json.dumps(document), problem.status, _headers(problem), media_type=media_type)


def openai_error(problem: wire.Problem) -> dict[str, object]:
    """The `error` object of OpenAI's API."""
    kinds = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
    kind = kinds.get(problem.status, "invalid_request_error" if problem.status < 500 else "server_error")
    return {"message": problem.detail, "type": kind, "param": problem.extra.get("param"), "code": problem.kind}


def error_code(problem: wire.Problem) -> int:
    """The original's table, which is FastChat's: 40001 to 50006."""
    by_kind = {
        "rate_limited": 42901,
        "quota_exceeded": 42902,
        "overloaded": 42903,
        "unknown_tool": 40301,
        "deadline": 40304,
        "unavailable": 50005,
    }
    by_status = {401: 40102, 403: 40103, 408: 40304, 429: 42903, 500: 50001, 502: 50005, 503: 50005, 504: 40304}
    code = by_kind.get(problem.kind) or by_status.get(problem.status)
    return code or (40302 if problem.family == "model" else 40001)


def _headers(problem: wire.Problem) -> dict[str, str]:
    if problem.status == 401:
        return {"www-authenticate": 'Bearer realm="thinkimg", Basic realm="thinkimg"'}
    if problem.status in (429, 503):
        after = problem.extra.get("retry_after_seconds", 1)
        return {"retry-after": str(max(1, math.ceil(float(str(after)))))}
    return {}
