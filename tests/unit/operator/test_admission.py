"""The chart's allow list has every field of our resources, so that a new one cannot pass by it."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml
from pydantic import BaseModel
from pydantic.alias_generators import to_camel

from tests.support import REPOSITORY
from tests.support.operator.admission import checked, levels, refused
from thinkimg.api.v1alpha1.crd import definitions
from thinkimg.api.v1alpha1.trainer_args import grpo_args, sft_args
from thinkimg.tools.registry import TOOLS

ARGS = {"spec.stages[].sft.args": sft_args, "spec.stages[].grpo.args": grpo_args}
SCHEMAS = {
    definition["spec"]["names"]["kind"]: definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    for definition in definitions()
}


def of_schema(schema: Mapping[str, Any], path: str) -> Iterator[tuple[str, set[str]]]:
    """Each object of a schema with the names of its fields, by path."""
    inner = schema["items"] if schema.get("type") == "array" else schema
    path = path + ("[]" if inner is not schema else "")
    if "properties" in inner:
        yield path, set(inner["properties"])
        for name, field in inner["properties"].items():
            yield from of_schema(field, f"{path}.{name}")


def of_options(options: type[BaseModel], path: str) -> Iterator[tuple[str, set[str]]]:
    names = options.model_fields
    yield path, {spelled for name in names for spelled in (name, to_camel(name))}
    for name, field in names.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from of_options(field.annotation, f"{path}.{name}")


def expected(kind: str) -> dict[str, set[str]]:
    """What is below a refused field need not be listed."""
    found = dict(of_schema(SCHEMAS[kind]["spec"], "spec"))
    if kind == "VisionTool":
        for declaration in TOOLS.values():
            for path, names in of_options(declaration.options, "spec.options"):
                found[path] = found.get(path, set()) | names
    closed = refused(kind)
    return {path: names for path, names in found.items() if not any(below(path, one) for one in closed)}


def below(path: str, field: str) -> bool:
    return path == field or path.startswith((f"{field}.", f"{field}[]"))


@pytest.mark.parametrize("kind", sorted(SCHEMAS))
def test_every_field_is_classified_once(kind: str) -> None:
    listed: dict[str, set[str]] = {}
    for level in levels(kind):
        names = [*level.get("allowed", []), *level.get("refused", []), *level.get("checked", {})]
        assert len(set(names)) == len(names), level["path"]
        assert level["path"] not in listed
        listed[level["path"]] = set(names)
    assert {path: names for path, names in listed.items() if path not in ARGS} == expected(kind)


@pytest.mark.parametrize("kind", sorted(SCHEMAS))
def test_what_runs_code_mounts_or_sends_a_secret_is_never_simply_allowed(kind: str) -> None:
    """The names that the review found, wherever they stand."""
    dangerous = {
        "image", "podTemplatePatch", "serviceAccountName", "code", "env", "claimName", "baseUrl", "endpoint", "uri",
        "trustRemoteCode", "trust_remote_code", "imagePullSecrets", "runtimeClassName", "configMapRef",
    }  # fmt: skip
    for level in levels(kind):
        assert not dangerous & {*level.get("allowed", [])}, level["path"]
        if level["path"].endswith(("secretRef", "secretRefs[]")):
            assert level["checked"] == {"name": "secret"}


def test_arguments_of_trainers_that_pass_are_such_and_hold_no_more_than_a_value() -> None:
    for level in levels("ToolRLJob"):
        if check := ARGS.get(level["path"]):
            for name in level["allowed"]:
                assert check({name: _value(check, name)})


def _value(check: Any, name: str) -> Any:
    """One of the plain values that the argument takes."""
    for value in (True, 1, 0.5, "text"):
        try:
            check({name: value})
        except ValueError:
            continue
        return value
    raise AssertionError(f"{name} takes no plain value")


def test_checks_are_all_used_and_all_there() -> None:
    document = yaml.safe_load((REPOSITORY / "charts/thinkimg-operator/files/admission.yaml").read_text())
    used = {check for kind in SCHEMAS for check in checked(kind).values()}
    assert used == document["checks"].keys()
