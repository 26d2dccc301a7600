"""What a reader chose to see: the filter in the page's address, as conditions on the index."""

import re
from collections.abc import Collection, Mapping
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from thinkimg.api import suggestion
from thinkimg.errors import UserError

Sort = Literal["written", "reward", "-reward", "calls", "-calls", "tokens", "-tokens", "seconds", "-seconds", "step"]

_RANGE = re.compile(r"\s*(\d+)\s*(?:(?:-|–|\.\.)\s*(\d+)\s*)?")


class Selection(BaseModel):
    """A filter and an order. All fields are optional; an empty one does not narrow.

    Attributes:
        q: words, each the beginning of one in the question, an answer, a thought or a result; all must occur.
        run, stage, model, mode, kind, status: equal to.
        step: `40`, or a range with both ends: `10-80`.
        outcome: `right`, `wrong` or `open` (not scored).
        tool: called at least once; `-` for no tool at all.
        error: `any`, `none`, or a kind such as `bad_arguments`; `infrastructure` for an episode that ended by it.
        min, max: of the total reward.
        subject: trajectories on one question about one picture.
        sort: `written` is the order of the files; `-` puts large values first.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    q: str = Field(default="", max_length=1000)
    run: str = ""
    stage: str = ""
    model: str = ""
    mode: str = ""
    kind: str = ""
    status: str = ""
    step: str = Field(default="", max_length=100)
    outcome: Literal["", "right", "wrong", "open"] = ""
    tool: str = ""
    error: str = ""
    min: float | None = None
    max: float | None = None
    subject: str = ""
    sort: Sort = "written"

    @field_validator("step")
    @classmethod
    def _a_step_or_a_range(cls, step: str) -> str:
        if step.strip() and not _RANGE.fullmatch(step):
            raise ValueError(f"{step!r} is neither a step such as 40 nor a range such as 10-80")
        return step.strip()

    @field_validator("min", "max", mode="before")
    @classmethod
    def _empty_is_none(cls, value: Any) -> Any:
        return None if value == "" else value

    @classmethod
    def parse(cls, values: Mapping[str, str], beside: Collection[str] = ()) -> "Selection":
        """From the query of an address.

        Args:
            beside: further names that may stand there, and choose nothing.

        Raises:
            UserError: naming the field, or a name that is no filter: it would choose everything.
        """
        given = {name: value for name, value in values.items() if name not in beside}
        if unknown := [name for name in given if name not in cls.model_fields]:
            raise UserError(f"there is no such filter. {suggestion(unknown[0], cls.model_fields)}", unknown[0][:80])
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            first = error.errors()[0]
            raise UserError(first["msg"].removeprefix("Value error, "), str(first["loc"][0])) from error

    def conditions(self) -> tuple[str, list[Any]]:
        """SQL behind WHERE, over `trajectories t` and `sources s`, and its values."""
        terms: list[tuple[str, list[Any]]] = []
        for name, column in (
            *((name, f"s.{name}") for name in ("run", "stage", "model", "mode")),
            *((name, f"t.{name}") for name in ("kind", "status", "subject")),
        ):
            if value := getattr(self, name):
                terms.append((f"{column} = ?", [value]))
        if match := _RANGE.fullmatch(self.step):
            terms.append(("t.step BETWEEN ? AND ?", [int(match[1]), int(match[2] or match[1])]))
        if self.outcome:
            terms.append(
                ({"right": "t.correct = 1", "wrong": "t.correct = 0", "open": "t.correct IS NULL"}[self.outcome], [])
            )
        if self.tool:
            terms.append(
                ("t.calls = 0", [])
                if self.tool == "-"
                else ("t.id IN (SELECT trajectory FROM calls WHERE tool = ?)", [self.tool])
            )
        if self.error in ("any", "none"):
            terms.append(("t.failed > 0" if self.error == "any" else "t.failed = 0", []))
        elif self.error:
            terms.append(("t.id IN (SELECT trajectory FROM faults WHERE kind = ?)", [self.error]))
        if self.min is not None:
            terms.append(("t.reward >= ?", [self.min]))
        if self.max is not None:
            terms.append(("t.reward <= ?", [self.max]))
        if words := re.findall(r"\w+", self.q):
            terms.append(
                ("t.id IN (SELECT rowid FROM words WHERE words MATCH ?)", [" ".join(f'"{word}"*' for word in words)])
            )
        return " AND ".join(term for term, _ in terms) or "1", [value for _, values in terms for value in values]

    def order(self) -> str:
        """SQL behind ORDER BY; what has no value comes last."""
        if self.sort == "written":
            return "t.id"
        column = self.sort.removeprefix("-")
        return f"t.{column} IS NULL, t.{column} {'DESC' if self.sort.startswith('-') else 'ASC'}, t.id"


SORTS = get_args(Sort)
