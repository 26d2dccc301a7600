"""`spec.failurePolicy` of a ToolRLJob: what follows after an attempt has failed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .resource import Block, NonNegative, Rule, Seconds, StageName, Violation, refuse_all


class ExitCodes(Block):
    """Exit codes. ThinkIMG's own: 2 the user's error, 70 infrastructure, 75 interrupted after saving, 1 other."""

    operator: Literal["In", "NotIn"]
    """Whether the code must be among `values` or not."""
    values: Annotated[list[Annotated[int, Field(ge=1, le=255)]], Field(min_length=1, max_length=255)]
    """Exit codes, 1 to 255."""


class FailureRule(Block):
    """What to do after a failure that fits; the first rule that fits decides."""

    cel = (
        Rule(
            "has(self.onExitCodes) || (has(self.onPodReasons) && self.onPodReasons.size() > 0)",
            "the rule fits nothing. Give onExitCodes or onPodReasons.",
        ),
    )

    action: Literal["Restart", "RestartUncounted", "Fail"]
    """Start a new attempt, counted against `maxRestarts` or not, or end the job."""
    stages: Annotated[list[StageName], Field(max_length=12)] = Field(default_factory=list)
    """Stages it is for; default: all."""
    on_exit_codes: ExitCodes | None = None
    """Fits when a container ended with such a code."""
    on_pod_reasons: Annotated[
        list[Annotated[str, Field(pattern=r"^[A-Z][A-Za-z0-9]*$", max_length=253)]], Field(max_length=20)
    ] = Field(default_factory=list)
    """Fits when a pod ended for such a reason, as in Evicted or OOMKilled."""

    @model_validator(mode="after")
    def _says_when(self) -> FailureRule:
        if self.on_exit_codes is None and not self.on_pod_reasons:
            refuse_all([Violation((), "the rule fits nothing", "Give onExitCodes or onPodReasons.")])
        return self


class FailurePolicy(Block):
    """How failed attempts are repeated. The user's errors (exit code 2) never are."""

    cel = (
        Rule(
            "self.maxBackoffSeconds >= self.backoffSeconds",
            "maxBackoffSeconds is less than backoffSeconds. Raise it.",
        ),
    )

    max_restarts: NonNegative = 3
    """Most counted restarts of the whole job."""
    backoff_seconds: Seconds = 10
    """Pause before a stage's second restart (before its first there is none); it doubles with each."""
    max_backoff_seconds: Seconds = 300
    """Longest pause."""
    node_lost_seconds: Seconds = 120
    """How long an unreachable node may stay away before its pods are given up."""
    rules: Annotated[list[FailureRule], Field(max_length=20)] = Field(default_factory=list)
    """Exceptions, tried in order before the default: restart and count."""

    @model_validator(mode="after")
    def _ordered(self) -> FailurePolicy:
        if self.max_backoff_seconds < self.backoff_seconds:
            message = (
                f"maxBackoffSeconds ({self.max_backoff_seconds}) is less than backoffSeconds ({self.backoff_seconds})"
            )
            refuse_all([Violation(("maxBackoffSeconds",), message, "Raise it.")])
        return self
