"""The caller's own `tools`: offered to the model beside ours, and handed back to the caller, who alone can run them."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from thinkimg.agent.formats import Parsed
from thinkimg.agent.tools import OfferedTools, Outcome
from thinkimg.errors import ModelError
from thinkimg.gateway.refusals import Refusal, refuse
from thinkimg.image import Image
from thinkimg.message import ToolCallBlock
from thinkimg.tools.tool import ToolSchema, normalise_name

_ANSWER = normalise_name("Terminate")
"""What a syntax of ours calls the answer."""
_NO_ARGUMENTS: dict[str, Any] = {"type": "object", "properties": {}}


class Function(BaseModel):
    """What a tool of the caller's is; `parameters` is a JSON schema."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    @field_validator("parameters")
    @classmethod
    def _names_are_read_of_it(cls, schema: dict[str, Any] | None) -> dict[str, Any] | None:
        required, properties = (schema or {}).get("required", []), (schema or {}).get("properties", {})
        if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
            raise ValueError("`required` must be a list of names")
        if not isinstance(properties, dict):
            raise ValueError("`properties` must be an object")
        return schema


class FunctionTool(BaseModel):
    model_config = ConfigDict(extra="forbid")

    type: Literal["function"]
    function: Function


class Named(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str


class Choice(BaseModel):
    """One tool that must be called, or may be."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["function"]
    function: Named


class Allowed(BaseModel):
    model_config = ConfigDict(extra="forbid")

    mode: Literal["auto", "required"]
    tools: list[Choice]


class AllowedTools(BaseModel):
    model_config = ConfigDict(extra="forbid")

    type: Literal["allowed_tools"]
    allowed_tools: Allowed


ToolChoice = Literal["none", "auto", "required"] | Choice | AllowedTools


class HandedBack(Exception):
    """The model called tools of the caller's: they stand in the last turn, and the caller goes on."""


class Functions:
    """The caller's tools of one request, those that `tool_choice` leaves.

    Args:
        parallel: whether one turn may call several tools, ours included.

    Raises:
        Refusal: 400: two tools of one name, one that is called as one of ours, a choice that is none.
    """

    def __init__(
        self, tools: list[FunctionTool], choice: ToolChoice | None, parallel: bool, ours: Mapping[str, ToolSchema]
    ) -> None:
        self._parallel = parallel
        known = _known(tools, ours)
        chosen, self.required = _chosen(known, choice)
        self.schemas = {schema.name: schema for schema in chosen.values()}
        self._spelled = {spelling: schema.name for spelling, schema in chosen.items()}

    def has(self, name: str) -> bool:
        return normalise_name(name) in self._spelled

    def check(self, parsed: Parsed) -> None:
        """Raises `ModelError` for a turn that cannot be handed back, or does not do what `tool_choice` wants."""
        theirs = [call.name for call in parsed.calls if self.has(call.name)]
        if theirs and len(theirs) < len(parsed.calls):
            raise ModelError(f"Call {theirs[0]} in a turn without other tools.", kind="malformed_call")
        if len(parsed.calls) > 1 and not self._parallel:
            raise ModelError("Call one tool at a time.", kind="malformed_call")
        if self.required and parsed.answer is not None:
            raise ModelError(f"Before you answer, call {' or '.join(self.schemas)}.", kind="malformed_call")

    def handed(self, calls: list[ToolCallBlock]) -> list[tuple[str, dict[str, Any]]]:
        """Names, as the caller spells them, and arguments of the calls that are the caller's."""
        found = [(self._spelled.get(normalise_name(call.name)), call.arguments) for call in calls]
        return [(name, arguments) for name, arguments in found if name is not None]


class WithFunctions:
    """Ours and the caller's tools as one set for the agent."""

    def __init__(self, ours: OfferedTools, functions: Functions) -> None:
        self.schemas: Mapping[str, ToolSchema] = {**ours.schemas, **functions.schemas}
        self._ours = ours
        self._functions = functions

    async def call(self, name: str, arguments: dict[str, Any], images: Mapping[str, Image]) -> Outcome:
        """As `OfferedTools.call`. Raises `HandedBack` for a tool of the caller's."""
        if self._functions.has(name):
            raise HandedBack
        return await self._ours.call(name, arguments, images)


def _known(tools: list[FunctionTool], ours: Mapping[str, ToolSchema]) -> dict[str, ToolSchema]:
    taken = {normalise_name(name): schema.name for schema in ours.values() for name in (schema.name, *schema.aliases)}
    known: dict[str, ToolSchema] = {}
    for number, tool in enumerate(tools):
        function, field = tool.function, f"tools[{number}].function"
        spelling = normalise_name(function.name)
        if spelling in taken:
            raise _wrong(
                f"{field}.name",
                f"{function.name!r} is the gateway's tool {taken[spelling]}; give yours another name, or offer the "
                "model others of ours with `thinkimg.tools`",
            )
        if spelling in known or spelling == _ANSWER:
            other = "how a model answers" if spelling == _ANSWER else "a tool before it"
            raise _wrong(f"{field}.name", f"{function.name!r} is {other}; give it another name")
        if function.strict:
            raise _wrong(f"{field}.strict", "arguments are not held to a schema here; leave strict out, and check them")
        known[spelling] = ToolSchema(
            name=function.name,
            version="caller",
            description=function.description or "",
            parameters=function.parameters or _NO_ARGUMENTS,
        )
    return known


def _chosen(known: dict[str, ToolSchema], choice: ToolChoice | None) -> tuple[dict[str, ToolSchema], bool]:
    """Those that are offered, and whether one must be called."""
    if choice is None or choice == "auto":
        return known, False
    if choice == "none":
        return {}, False
    if not known:
        raise _wrong("tool_choice", "there are no `tools` to choose from")
    if choice == "required":
        return known, True
    if isinstance(choice, Choice):
        return _named(known, [choice]), True
    return _named(known, choice.allowed_tools.tools), choice.allowed_tools.mode == "required"


def _named(known: dict[str, ToolSchema], choices: list[Choice]) -> dict[str, ToolSchema]:
    by_name = {schema.name: (spelling, schema) for spelling, schema in known.items()}
    for choice in choices:
        if choice.function.name not in by_name:
            raise _wrong("tool_choice", f"`tools` has no {choice.function.name[:80]!r}; it has {', '.join(by_name)}")
    return dict(by_name[choice.function.name] for choice in choices)


def _wrong(field: str, problem: str) -> Refusal:
    return refuse(400, "invalid_request", f"{field}: {problem}", param=field)
