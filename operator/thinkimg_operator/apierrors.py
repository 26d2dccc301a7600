"""Errors of the Kubernetes API, by what they mean for the operator."""

from __future__ import annotations

import json

from .kinds import Key

_UNDECLARED = "field not declared in schema"
"""What an apply says of a field that the API server does not know, with the status of an error of its own."""


class ApiError(Exception):
    """The API server refused, failed, or did not answer (`status` 0)."""

    def __init__(self, status: int, reason: str, message: str, retry_after: float = 0.0) -> None:
        super().__init__(f"{status or 'no answer'} {reason}: {message}")
        self.status = status
        self.reason = reason
        """Kubernetes' word for it: `NotFound`, `Conflict`, `AlreadyExists`, `Invalid`, `Forbidden`, `Timeout` …"""
        self.message = message
        self.retry_after = retry_after
        """Seconds that the server asks to wait; 0 when it says nothing."""

    @property
    def not_found(self) -> bool:
        return self.status == 404

    @property
    def conflict(self) -> bool:
        """Somebody else was faster; read again and decide anew."""
        return self.status == 409

    @property
    def refused(self) -> bool:
        """The object itself is not acceptable: the same request will never succeed."""
        return self.status in (400, 422) or (self.status == 500 and _UNDECLARED in self.message)

    @property
    def forbidden(self) -> bool:
        """RBAC, a quota or an admission policy says no; somebody has to change something."""
        return self.status == 403


class NameTakenError(Exception):
    """An object has the name of a child and belongs to somebody else. It is left alone."""

    def __init__(self, key: Key) -> None:
        super().__init__(f"{key} exists already and is not ours")
        self.key = key


class NotLeadingError(Exception):
    """A write was held back because this process may no longer be the leader."""


def error_of(status: int, data: bytes, retry_after: str | None) -> ApiError:
    """An answer that is no success.

    Args:
        retry_after: the header of that name.
    """
    try:
        document = json.loads(data)
    except ValueError:
        document = {}
    if not isinstance(document, dict):
        document = {}
    message = document.get("message") or data[:200].decode(errors="replace")
    seconds = float(retry_after) if retry_after and retry_after.isdigit() else 0.0
    return ApiError(status, document.get("reason") or "", message, seconds)
