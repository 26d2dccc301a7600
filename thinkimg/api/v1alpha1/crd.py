"""The CustomResourceDefinitions, generated from the models: structure, defaults, descriptions and CEL rules.

pydantic's JSON schema carries almost everything; `_structural` turns it into what the API server calls a structural
schema. `hack/generate_crds.py` writes the files that are installed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import BaseModel

from .fields import WHILE_SUSPENDED, mutability
from .meta import GROUP
from .resource import VALIDATIONS, Rule
from .stages import Stage
from .toolrljob import ToolRLJob
from .visiontool import VisionTool

Schema = dict[str, Any]

# Keywords that mean the same on both sides.
_KEPT = (
    "type",
    "format",
    "enum",
    "pattern",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "maxProperties",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-preserve-unknown-fields",
    VALIDATIONS,
)


@dataclass(frozen=True)
class Column:
    """A column of `kubectl get`; with `wide`, of `kubectl get -o wide` only."""

    name: str
    path: str
    type: str = "string"
    wide: bool = False

    def as_column(self) -> Schema:
        column: Schema = {"name": self.name, "type": self.type, "jsonPath": self.path}
        return column | {"priority": 1} if self.wide else column


def _condition(type_: str, part: str = "status") -> str:
    return f'.status.conditions[?(@.type=="{type_}")].{part}'


_AGE = Column("Age", ".metadata.creationTimestamp", "date")
_COLUMNS: dict[type[BaseModel], tuple[Column, ...]] = {
    VisionTool: (
        Column("Tool", ".spec.tool"),
        Column("Accepted", _condition("Accepted")),
        Column("Available", _condition("Available")),
        Column("Ready", ".status.readyReplicas", "integer"),
        Column("Replicas", ".spec.replicas", "integer"),
        _AGE,
        Column("Backend", ".spec.backend", wide=True),
        Column("URL", ".status.url", wide=True),
        Column("Message", _condition("Available", "message"), wide=True),
    ),
    ToolRLJob: (
        Column("Accepted", _condition("Accepted")),
        Column("Stage", ".status.currentStage"),
        Column("Complete", _condition("Complete")),
        Column("Failed", _condition("Failed")),
        Column("Restarts", ".status.restarts", "integer"),
        _AGE,
        Column("Tools Ready", _condition("ToolsReady"), wide=True),
        Column("Pods Ready", _condition("PodsReady"), wide=True),
        Column("Suspended", _condition("Suspended"), wide=True),
        Column("Message", _condition("Failed", "message"), wide=True),
    ),
}
_SHORT_NAMES: dict[type[BaseModel], str] = {VisionTool: "vt", ToolRLJob: "trj"}
_SCALE = {
    "specReplicasPath": ".spec.replicas",
    "statusReplicasPath": ".status.replicas",
    "labelSelectorPath": ".status.selector",
}


def definitions() -> list[Schema]:
    """The CustomResourceDefinition of each resource."""
    return [definition(VisionTool), definition(ToolRLJob)]


def definition(resource: type[BaseModel]) -> Schema:
    """The CustomResourceDefinition of `resource`."""
    kind = resource.__name__
    plural = f"{kind.lower()}s"
    subresources: Schema = {"status": {}}
    if resource is VisionTool:
        subresources["scale"] = _SCALE
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{GROUP}",
            "labels": {"app.kubernetes.io/part-of": "thinkimg"},
            # Without a definition its objects are gone: uninstalling a chart leaves it, deleting it is a decision.
            "annotations": {"helm.sh/resource-policy": "keep"},
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                "shortNames": [_SHORT_NAMES[resource]],
                "categories": ["thinkimg"],
            },
            "versions": [
                {
                    "name": "v1alpha1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": _root(resource)},
                    "subresources": subresources,
                    "additionalPrinterColumns": [column.as_column() for column in _COLUMNS[resource]],
                }
            ],
        },
    }


def _root(resource: type[BaseModel]) -> Schema:
    generated = resource.model_json_schema(by_alias=True)
    definitions = generated.get("$defs", {})
    name = definitions[f"{resource.__name__}Meta"]["properties"]["name"]
    spec = _structural(generated["properties"]["spec"], definitions)
    for field, schema in spec["properties"].items():
        schema["description"] = f"{schema['description']} {_change(resource, field)}"
    rules = [
        {"rule": rule["rule"].replace("self", "self.metadata.name"), "message": f"metadata.name: {rule['message']}"}
        for rule in name[VALIDATIONS]
    ]
    return {
        "type": "object",
        "description": _sentence(generated["description"]),
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"Group and version: {GROUP}/v1alpha1."},
            "kind": {"type": "string", "description": f"{resource.__name__}."},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": _structural(generated["properties"]["status"], definitions),
        },
        VALIDATIONS: [*rules, *_immutability(resource, list(spec["properties"]))],
    }


def _change(resource: type[BaseModel], field: str) -> str:
    when = mutability(resource, f"spec.{field}")
    return {"always": "May be changed at any time.", "never": "Never changes."}.get(when, f"May be changed {when}.")


def _unchanged(here: str, before: str) -> str:
    return f"has({here}) == has({before}) && (!has({here}) || {here} == {before})"


def _stages_of_a_started_job() -> Rule:
    """Each stage at its place: the API server takes lists with keys for equal in any order."""
    names = [info.alias or name for name, info in Stage.model_fields.items()]
    fixed = [n for n in names if mutability(ToolRLJob, f"spec.stages[].{n}") != WHILE_SUSPENDED]
    here, before = "self.spec.stages", "oldSelf.spec.stages"
    same = " && ".join(f"({_unchanged(f's.{name}', f'{before}[i].{name}')})" for name in fixed)
    return Rule(
        f"{_NOT_STARTED} || ({here}.size() == {before}.size() && {here}.all(i, s, {same}) && "
        f"({_SUSPENDED} || {here} == {before}))",
        "it cannot be changed once the job has started, but for pods and resources while spec.suspend is true. "
        "Suspend the job for those; for others delete it and apply a new one.",
    )


_NOT_STARTED = "!has(oldSelf.status) || !has(oldSelf.status.startTime)"
_SUSPENDED = "(has(oldSelf.spec.suspend) && oldSelf.spec.suspend)"
_STAGES_OF_A_STARTED_JOB = _stages_of_a_started_job()


def _immutability(resource: type[BaseModel], fields: list[str]) -> list[Schema]:
    """Rules of an update, one for each field, so that the refusal names it."""
    rules = []
    for field in fields:
        when = mutability(resource, f"spec.{field}")
        here, before = f"self.spec.{field}", f"oldSelf.spec.{field}"
        unchanged = _unchanged(here, before)
        if resource is ToolRLJob and field == "stages":
            rule = _STAGES_OF_A_STARTED_JOB
        elif when == "never":
            rule = Rule(unchanged, "it cannot be changed. Delete the object and apply a new one.")
        elif when == WHILE_SUSPENDED:
            rule = Rule(
                f"{_NOT_STARTED} || {_SUSPENDED} || ({unchanged})",
                "once the job has started, it changes only while the job is suspended. Set spec.suspend to true.",
            )
        elif when != "always":
            rule = Rule(
                f"{_NOT_STARTED} || ({unchanged})",
                "it cannot be changed once the job has started. Delete the job and apply a new one.",
            )
        else:
            continue
        rules.append(rule.as_validation() | {"fieldPath": f".spec.{field}"})
    return rules


def _structural(schema: Schema, definitions: Schema) -> Schema:
    """One node of pydantic's JSON schema, references resolved, as the API server wants it."""
    merged = {**schema}
    while "$ref" in merged or "allOf" in merged:
        for part in [merged.pop("$ref", None), *merged.pop("allOf", [])]:
            target = definitions[part.rpartition("/")[2]] if isinstance(part, str) else part or {}
            merged = {**target, **merged}  # what stands beside a reference (its description) wins
    if "anyOf" in merged:  # `X | None`: null is no value, see Block
        (present,) = (option for option in merged.pop("anyOf") if option.get("type") != "null")
        return _structural({**present, **merged}, definitions)
    node: Schema = {}
    if description := merged.get("description"):
        node["description"] = _sentence(description)
    if unit := merged.get("x-unit"):
        node["description"] = f"{node.get('description', '')} Unit: {unit}.".strip()
    node |= {keyword: merged[keyword] for keyword in _KEPT if keyword in merged}
    if merged.get("default") is not None:
        node["default"] = merged["default"]
    if "const" in merged:
        node["enum"] = [merged["const"]]
    if "exclusiveMinimum" in merged:  # a number in JSON Schema, a flag in OpenAPI 3.0
        node |= {"minimum": merged["exclusiveMinimum"], "exclusiveMinimum": True}
    if "properties" in merged:
        node["properties"] = {name: _structural(inner, definitions) for name, inner in merged["properties"].items()}
        if required := merged.get("required"):
            node["required"] = required
    elif merged.get("type") == "object":
        node |= _map(merged, definitions)
    if "items" in merged:
        node["items"] = _structural(merged["items"], definitions)
    return node


def _map(schema: Schema, definitions: Schema) -> Schema:
    """A mapping without declared fields: of one type of value, or of anything."""
    values = schema.get("additionalProperties")
    if "patternProperties" in schema:  # a CRD has none: a rule looks at the keys
        (values,) = schema["patternProperties"].values()
    if isinstance(values, dict):
        return {"additionalProperties": _structural(values, definitions)}
    return {"x-kubernetes-preserve-unknown-fields": True}


def _sentence(text: str) -> str:
    """A description on one line, without Markdown's quotes."""
    return " ".join(text.split()).replace("`", "")


def to_yaml(definition: Schema) -> str:
    """The definition as a file: YAML that kubectl and helm take as it is."""
    text = yaml.safe_dump(_shared(definition, {}), sort_keys=False, width=110, allow_unicode=True)
    assert "{{" not in text, "helm would take {{ for an expression"
    return text


def _shared(node: Any, known: dict[str, Any]) -> Any:
    """Blocks that stand in several places as one object each, which YAML writes once and names where it stands again:
    a definition of a megabyte is no use to kubectl."""
    if isinstance(node, list):
        return [_shared(item, known) for item in node]
    if not isinstance(node, dict):
        return node
    shared = {key: _shared(value, known) for key, value in node.items()}
    if "properties" in shared:
        shared["properties"] = known.setdefault(json.dumps(shared["properties"]), shared["properties"])
    if rules := shared.get("x-kubernetes-validations"):
        shared["x-kubernetes-validations"] = known.setdefault(json.dumps(rules), rules)
    return shared
