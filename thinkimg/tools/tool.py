"""What a tool is: one typed declaration, from which schema, server, client and documentation follow."""

import difflib
import inspect
import re
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.alias_generators import to_camel

from thinkimg.errors import ModelError, UserError
from thinkimg.image import Image, ImageDecodeError
from thinkimg.tools.coordinates import Size, axes_of, hint_of


@dataclass(frozen=True)
class ToolResult:
    """What a tool gives back.

    Attributes:
        text: the sentence or lines that the model reads.
        data: the same as numbers (coordinates in percent of width and height), JSON-serialisable.
        images: pictures, at source resolution; the agent gives them the next handles.
    """

    text: str
    data: dict[str, Any] = field(default_factory=dict)
    images: tuple[Image, ...] = ()


class ToolSchema(BaseModel):
    """A tool as others see it: over the wire, in the model's prompt, in the documentation.

    Attributes:
        version: changes when results change; part of every cache key.
        parameters: JSON schema of the arguments, as in OpenAI's function calling.
        image_parameters: the arguments that name an image by handle.
        image_affinity: the tool keeps something expensive per picture (an embedding); clients send further calls on a
            picture to the replica that has it.
        computed_by: what its server computes it with: the backend, and a digest of the options of it. Empty where
            nobody serves it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    version: str
    description: str
    parameters: dict[str, Any]
    image_parameters: tuple[str, ...] = ()
    aliases: tuple[str, ...] = Field(default=())
    image_affinity: bool = False
    computed_by: str = ""

    def as_function(self) -> dict[str, Any]:
        """The form that OpenAI's API and chat templates use."""
        return {
            "type": "function",
            "function": {"name": self.name, "description": self.description, "parameters": self.parameters},
        }


def normalise_name(name: str) -> str:
    """Spelling under which names are compared: no case, no `_` or `-`, `Subfigure` = `Subplot` = `ZoomIn`/`Zoomin`."""
    return re.sub(r"subfigure$", "subplot", re.sub(r"[_\-\s]", "", name).lower())


class ToolOptions(BaseModel):
    """Options of a tool's backend, as written in a `VisionTool`; camelCase outside, snake_case here."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)


Outcome = ToolResult | ModelError
BatchFunction = Callable[[Sequence[Mapping[str, Any]]], list[Outcome]]


class ToolImplementation(Protocol):
    """A tool that is a class: it keeps what `load` brought in. Its `run` is the declaration.

    It may define two more members:

    `run_batch(calls: Sequence[Mapping[str, Any]]) -> list[ToolResult | ModelError]` computes several calls at once and
    makes the tool `batched`. Each mapping holds the keyword arguments that `run` would get, defaults included; there is
    one result per call, in the order of the calls, equal to what `run` gives for it. A call that is the model's fault
    has its `ModelError` as its result and does not hurt the others. Both
    must be safe to call from several threads.

    `details: Mapping[str, str]`, known after `load`, says what was chosen on this machine (`device`, `dtype`,
    `weights`); it is shown to people and decides nothing.
    """

    def __init__(self, backend: str, options: Any) -> None: ...

    def load(self) -> None:
        """Import libraries and read weights; called once, before the tool is said to be ready."""

    @property
    def run(self) -> Callable[..., ToolResult]: ...


@dataclass(frozen=True)
class LoadedImplementation:
    """What of an implementation is called. `run_batch` is None for a tool that computes one call at a time."""

    run: Callable[..., ToolResult]
    run_batch: BatchFunction | None = None
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ToolDeclaration:
    """All that is known of a tool before anything heavy is imported.

    Attributes:
        schema: what others see.
        arguments: the pydantic model of the arguments; image arguments are strings in it.
        backends: names, the default first.
        options: the pydantic model of the options.
        make: builds and loads the implementation.
        read_param: reads the single free string `param` of OpenThinkIMG's calls into arguments, None if there is none.
        places: the arguments that are coordinates.
    """

    schema: ToolSchema
    arguments: type[BaseModel] = field(repr=False)
    backends: tuple[str, ...]
    options: type[ToolOptions] = field(repr=False)
    make: Callable[[str, ToolOptions], LoadedImplementation] = field(repr=False)
    read_param: Callable[[str], dict[str, Any]] | None = field(repr=False, default=None)
    places: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.schema.name

    def load(self, backend: str | None = None, options: Mapping[str, Any] | None = None) -> "Tool":
        """Make the tool ready to run.

        Raises:
            UserError: an unknown backend or option; the message names it.
        """
        chosen = backend or self.backends[0]
        if chosen not in self.backends:
            known = ", ".join(self.backends)
            raise UserError(f"{self.name} has no backend {chosen!r}; known: {known}", field="backend")
        return Tool(self, self.make(chosen, self._read_options(options or {})))

    def _read_options(self, options: Mapping[str, Any]) -> ToolOptions:
        try:
            return self.options.model_validate(dict(options))
        except ValidationError as error:
            first = error.errors()[0]
            path = ".".join(["options", *map(str, first["loc"])])
            known = ", ".join(f.alias or name for name, f in self.options.model_fields.items()) or "none"
            raise UserError(f"{first['msg']} (options of {self.name}: {known})", field=path) from error

    def bind(self, arguments: Mapping[str, Any], images: Mapping[str, Image]) -> dict[str, Any]:
        """Check what a model wrote and put the images in.

        Args:
            arguments: name to value; an image argument's value is a key of `images`.
            images: handle to image.

        Returns:
            Keyword arguments of the implementation, defaults included.

        Raises:
            ModelError: with a sentence per wrong argument: which, what is wrong, what would be right.
        """
        given = self._without_param(dict(arguments))
        self._refuse_unknown(given)
        try:
            checked = self.arguments.model_validate(given, context=self._size(given, images))
        except ValidationError as error:
            raise ModelError(self._explain(error)) from error
        bound = {name: getattr(checked, name) for name in self.arguments.model_fields}
        for name in self.schema.image_parameters:
            if bound[name] is not None:
                bound[name] = self._image(name, bound[name], images)
        return bound

    def hinted(self, bound: Mapping[str, Any], outcome: Outcome) -> Outcome:
        """The outcome, which says so if coordinates look as if another unit was meant: in its text, and in a result's
        `data["hint"]`.

        Args:
            bound: as `bind` returns them.
        """
        hint = " ".join(said for name in self.places if (said := hint_of(name, bound.get(name))))
        if not hint:
            return outcome
        if isinstance(outcome, ModelError):
            return ModelError(f"{outcome} {hint}", outcome.kind)
        return replace(outcome, text=f"{outcome.text}\n{hint}", data={**outcome.data, "hint": hint})

    def _size(self, given: Mapping[str, Any], images: Mapping[str, Image]) -> Size | None:
        """Of the first picture that the call names."""
        handles = [given.get(name) for name in self.schema.image_parameters]
        found = next((images[handle] for handle in handles if isinstance(handle, str) and handle in images), None)
        return None if found is None else (found.width, found.height)

    def _without_param(self, given: dict[str, Any]) -> dict[str, Any]:
        if "param" not in given or self.read_param is None or not isinstance(given["param"], str):
            return given
        param = given.pop("param")
        return {**self.read_param(param), **given}

    def _refuse_unknown(self, given: Mapping[str, Any]) -> None:
        known = list(self.arguments.model_fields)
        for name in given:
            if name not in known:
                near = difflib.get_close_matches(str(name).lower(), known, 1, 0.6)
                hint = f' Did you mean "{near[0]}"?' if near else ""
                listed = ", ".join(known)
                raise ModelError(f'{self.name} has no argument "{name}".{hint} Its arguments are: {listed}.')

    def _image(self, name: str, handle: str, images: Mapping[str, Image]) -> Image:
        if handle in images:
            return images[handle]
        known = ", ".join(images) or "none"
        raise ModelError(f'{self.name}: argument "{name}": there is no image "{handle}". Images so far: {known}.')

    def _explain(self, error: ValidationError) -> str:
        lines: dict[str, str] = {}
        for detail in error.errors(include_url=False):
            name = str(detail["loc"][0])
            if name not in lines:
                expected = self.schema.parameters["properties"][name].get("description", "")
                lines[name] = f'{self.name}: argument "{name}" {_fault(detail)}. Expected: {expected.rstrip(".")}.'
        return " ".join(lines.values())


class Tool:
    """A declaration with its implementation loaded.

    Attributes:
        batched: `run_batch` computes several calls at once, so that it pays to gather them.
        details: what was chosen on this machine, such as `device` and `dtype`; for people.
    """

    def __init__(self, declaration: ToolDeclaration, implementation: LoadedImplementation) -> None:
        self.declaration = declaration
        self._implementation = implementation
        self.batched = implementation.run_batch is not None
        self.details = dict(implementation.details)

    @property
    def schema(self) -> ToolSchema:
        return self.declaration.schema

    @property
    def name(self) -> str:
        return self.declaration.name

    def bind(self, arguments: Mapping[str, Any], images: Mapping[str, Image]) -> dict[str, Any]:
        """See `ToolDeclaration.bind`."""
        return self.declaration.bind(arguments, images)

    def run(self, arguments: Mapping[str, Any], images: Mapping[str, Image]) -> ToolResult:
        """Bind and execute. Safe to call from several threads.

        Raises:
            ModelError: wrong arguments, or the tool cannot do what was asked on this picture (kind `refused`).
        """
        return self._run_bound(self.bind(arguments, images))

    def run_batch(self, bound: Sequence[Mapping[str, Any]]) -> list[ToolResult | ModelError]:
        """Execute several calls: at once if the tool is `batched`, else one after another.

        Args:
            bound: keyword arguments as `bind` returns them, a mapping per call.

        Returns:
            One result per call, in order; equal to that of `run`. A call's `ModelError` is its result, and the others'
            results are as if it had not been there.

        Raises:
            InfrastructureError: of the batch as a whole; nothing of it was computed.
        """
        batch_function = self._implementation.run_batch
        if batch_function is None or not bound:
            return [self._run_or_error(call) for call in bound]
        try:
            results = batch_function(bound)
        except (ModelError, ImageDecodeError):  # one of them is at fault, and only running each by itself says which
            return [self._run_or_error(call) for call in bound]
        if len(results) != len(bound):
            raise RuntimeError(f"{self.name}: run_batch gave {len(results)} results for {len(bound)} calls")
        return [self.declaration.hinted(call, result) for call, result in zip(bound, results, strict=True)]

    def _run_or_error(self, bound: Mapping[str, Any]) -> Outcome:
        try:
            return self._run_bound(bound)
        except ModelError as error:
            return error

    def _run_bound(self, bound: Mapping[str, Any]) -> ToolResult:
        try:
            outcome: Outcome = self._implementation.run(**bound)
        except ImageDecodeError as error:
            raise ModelError(f"{self.name}: {error}", kind="refused") from error
        except ModelError as error:
            outcome = error
        return only_result([self.declaration.hinted(bound, outcome)])


def only_result(results: Sequence[ToolResult | ModelError]) -> ToolResult:
    """The result of a batch of one call: how a class with `run_batch` writes its `run`. Raises its `ModelError`."""
    (result,) = results
    if isinstance(result, ModelError):
        raise result
    return result


def tool(
    name: str,
    version: str,
    aliases: tuple[str, ...] = (),
    backends: tuple[str, ...] = ("builtin",),
    options: type[ToolOptions] = ToolOptions,
    read_param: Callable[[str], dict[str, Any]] | None = None,
    image_affinity: bool = False,
) -> Callable[[Callable[..., ToolResult] | type[ToolImplementation]], ToolDeclaration]:
    """Turn a typed function, or a class with `load` and `run`, into a tool.

    The type hints become the schema; the docstring (Google style) becomes the text that the model reads. Parameters
    typed `Image` are named by handle in calls. A `ModelError` raised by the tool is shown to the model; any other
    exception is a bug or a broken machine, and is not. A class may also compute batches: see `ToolImplementation`.
    """

    def declare(implementation: Callable[..., ToolResult] | type[ToolImplementation]) -> ToolDeclaration:
        function: Any = getattr(implementation, "run", implementation)
        summary, documented = _read_docstring(function)
        arguments, image_parameters = _arguments_model(name, function)
        schema = ToolSchema(
            name=name,
            version=version,
            description=summary,
            parameters=_parameters(arguments, image_parameters, documented),
            image_parameters=image_parameters,
            aliases=aliases,
            image_affinity=image_affinity,
        )
        hints = get_type_hints(function, include_extras=True)
        places = tuple(argument for argument in arguments.model_fields if axes_of(hints[argument]))
        return ToolDeclaration(schema, arguments, backends, options, _maker(implementation), read_param, places)

    return declare


def _maker(
    implementation: Callable[..., ToolResult] | type[ToolImplementation],
) -> Callable[[str, ToolOptions], LoadedImplementation]:
    def make(backend: str, options: ToolOptions) -> LoadedImplementation:
        if not isinstance(implementation, type):
            return LoadedImplementation(implementation)
        made = implementation(backend, options)
        made.load()
        return LoadedImplementation(made.run, getattr(made, "run_batch", None), getattr(made, "details", {}))

    return make


def _arguments_model(name: str, function: Callable[..., ToolResult]) -> tuple[type[BaseModel], tuple[str, ...]]:
    hints = get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {}
    image_parameters = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name == "self":
            continue
        hint = hints[parameter.name]
        if hint is Image:
            image_parameters.append(parameter.name)
            hint = str
        default = ... if parameter.default is inspect.Parameter.empty else parameter.default
        fields[parameter.name] = (hint, default)
    return create_model(f"{name}Arguments", __config__=ConfigDict(extra="forbid"), **fields), tuple(image_parameters)


def _parameters(
    arguments: type[BaseModel], image_parameters: tuple[str, ...], documented: Mapping[str, str]
) -> dict[str, Any]:
    """The JSON schema of the arguments, without pydantic's titles and with the docstring's sentences."""
    raw = arguments.model_json_schema()
    properties = {}
    for name, given in raw["properties"].items():
        wanted = given
        if "anyOf" in given:  # an optional argument: the absent value needs no word in the schema
            (inner,) = [option for option in given["anyOf"] if option.get("type") != "null"]
            wanted = {**inner, **{key: value for key, value in given.items() if key == "description"}}
        wanted = {key: value for key, value in wanted.items() if key not in ("title", "default")}
        unit = wanted.pop("description", "handle, e.g. img_1" if name in image_parameters else "")
        text = documented.get(name, "").rstrip(".")
        wanted["description"] = unit if name in image_parameters else "; ".join(part for part in (text, unit) if part)
        properties[name] = wanted
    return {
        "type": "object",
        "properties": properties,
        "required": raw.get("required", []),
        "additionalProperties": False,
    }


def _read_docstring(function: Callable[..., ToolResult]) -> tuple[str, dict[str, str]]:
    """The text before `Args:` in one line, and a sentence per argument."""
    text = inspect.getdoc(function) or ""
    summary, _, rest = text.partition("\nArgs:\n")
    summary = re.split(r"\n(?:Returns|Raises):\n", summary)[0]
    documented: dict[str, str] = {}
    name = ""
    for line in rest.splitlines():
        if line and not line.startswith(" "):
            break
        if match := re.match(r" {4}(\w+): (.*)", line):
            name = match[1]
            documented[name] = match[2].strip()
        elif name and line.strip():
            documented[name] += " " + line.strip()
    return " ".join(summary.split()), documented


_SHORT = reprlib.Repr()
"""Whatever a model wrote, in a few words: bounded in length and depth, however long and deep it is."""
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = 8
_SHORT.maxlevel = 3


def _fault(detail: Any) -> str:
    """What pydantic found, in words for a model."""
    shown = _SHORT.repr(detail["input"])
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "missing" and len(detail["loc"]) == 1:
        return "is missing"
    if kind in ("greater_than_equal", "less_than_equal"):
        bound = context.get("ge", context.get("le"))
        return f"is out of range: {shown} is {'below' if 'ge' in context else 'above'} {bound:g}"
    if kind == "finite_number":
        return f"must be a finite number, not {shown}"
    if kind == "value_error":
        return str(context["error"])
    if kind in ("string_type", "string_too_short"):
        return f"must be a text, not {shown}"
    return f"is wrong: {detail['msg']}, not {shown}"
