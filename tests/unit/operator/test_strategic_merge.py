"""Merging a patch into a pod template gives what `kubectl patch --type=strategic` gives."""

import json
import shutil
import subprocess
from copy import deepcopy
from pathlib import Path
from typing import Any

import binaries
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from thinkimg_operator.strategic_merge import MERGE_KEYS, PatchError, merge_pod_template

NAMES = st.sampled_from(["a", "b", "c"])
VALUES = st.sampled_from(["1", "2"])


def keyed(key: str, names: st.SearchStrategy[Any], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    element = st.fixed_dictionaries({key: names}, optional=fields)
    return st.lists(element, max_size=3, unique_by=lambda e: e[key])


def templates(patch: bool) -> st.SearchStrategy[Any]:
    deleted = {"$patch": st.just("delete")} if patch else {}
    null = [st.none()] if patch else []
    env = keyed("name", NAMES, value=VALUES, **deleted)
    mounts = keyed("mountPath", NAMES, name=NAMES, **deleted)
    ports = keyed("containerPort", st.sampled_from([1, 2, 3]), protocol=st.just("TCP"), **deleted)
    resources = st.fixed_dictionaries({}, optional={"limits": st.dictionaries(NAMES, VALUES, max_size=2)})
    containers = keyed(
        "name", NAMES, image=VALUES, env=env, volumeMounts=mounts, ports=ports, resources=resources,
        args=st.lists(VALUES, max_size=2), envFrom=st.lists(st.fixed_dictionaries({"prefix": NAMES}), max_size=2),
    )  # fmt: skip
    volumes = keyed("name", NAMES, emptyDir=st.fixed_dictionaries({}, optional={"medium": VALUES}), **deleted)
    tolerations = st.lists(st.fixed_dictionaries({"key": NAMES}), max_size=2)
    spec = {
        "containers": containers,
        "volumes": volumes,
        "tolerations": tolerations,
        "nodeSelector": st.one_of(st.dictionaries(NAMES, VALUES, max_size=2), *null),
        "imagePullSecrets": keyed("name", NAMES),
        "priorityClassName": st.one_of(VALUES, *null),
    }
    labels = st.dictionaries(NAMES, st.one_of(VALUES, *null), max_size=3)
    metadata = st.fixed_dictionaries({}, optional={"labels": labels})
    return st.fixed_dictionaries({"metadata": metadata, "spec": st.fixed_dictionaries({}, optional=spec)})


@pytest.fixture(scope="module")
def kubectl(tmp_path_factory: pytest.TempPathFactory) -> Any:
    command = binaries.find("kubectl") or shutil.which("kubectl")
    if command is None:
        pytest.skip("there is no kubectl")
    home = tmp_path_factory.mktemp("kubectl")

    def patch(template: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
        body = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": template}
        file = home / "template.json"
        file.write_text(json.dumps(body))
        words = ["patch", "--local", "--type=strategic", "-f", str(file), "-p", json.dumps({"template": change})]
        environment = {"HOME": str(home), "KUBECONFIG": str(Path(home / "none"))}
        run = subprocess.run(
            [command, *words, "-o", "json"], capture_output=True, text=True, check=True, env=environment
        )
        return json.loads(run.stdout)["template"]

    return patch


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(template=templates(patch=False), patch=templates(patch=True))
def test_merging_gives_what_kubectl_gives(kubectl: Any, template: dict[str, Any], patch: dict[str, Any]) -> None:
    expected = kubectl(template, patch)
    assume("$patch" not in json.dumps(expected))  # kubectl forgets directives inside of elements that are new
    assert _without_empty(merge_pod_template(template, patch)) == _without_empty(expected)


@pytest.mark.parametrize(
    "patch",
    [
        {"spec": {"containers": [{"$patch": "replace"}, {"name": "side", "image": "s"}]}},
        {"spec": {"containers": [{"name": "side"}, {"name": "stage", "env": [{"name": "A", "$patch": "delete"}]}]}},
        {"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "emptyDir"], "emptyDir": {}}]}},
        {"metadata": {"labels": {"$patch": "replace", "only": "this"}}},
        {"spec": {"nodeSelector": {"$patch": "delete"}, "affinity": {"nodeAffinity": {"$patch": "delete"}}}},
    ],
)
def test_directives_mean_what_they_mean_to_kubectl(kubectl: Any, patch: dict[str, Any]) -> None:
    template = {
        "metadata": {"labels": {"a": "1"}},
        "spec": {
            "containers": [{"name": "stage", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]}],
            "volumes": [{"name": "v", "hostPath": {"path": "/x"}}],
            "nodeSelector": {"gpu": "yes"},
        },
    }
    assert _without_empty(merge_pod_template(template, patch)) == _without_empty(kubectl(template, patch))


@given(template=templates(patch=False), patch=templates(patch=True))
def test_merging_changes_neither_and_is_repeatable(template: dict[str, Any], patch: dict[str, Any]) -> None:
    before = deepcopy((template, patch))
    once = merge_pod_template(template, patch)
    assert merge_pod_template(template, patch) == once
    assert (template, patch) == before


@given(template=templates(patch=False))
def test_an_empty_patch_changes_nothing(template: dict[str, Any]) -> None:
    assert merge_pod_template(template, {}) == template


@pytest.mark.parametrize(
    ("patch", "text"),
    [
        ({"spec": {"containers": [{"image": "x"}]}}, "podTemplatePatch.spec.containers[0]: an element without name"),
        ({"spec": {"containers": {"name": "x"}}}, "podTemplatePatch.spec.containers: not a mapping is expected"),
        ({"spec": {"$setElementOrder/containers": []}}, "the directive $setElementOrder/containers is not supported"),
        ({"spec": {"$patch": "remove"}}, "$patch is delete, replace or merge, not 'remove'"),
    ],
)
def test_what_cannot_be_merged_is_refused_with_its_place(patch: dict[str, Any], text: str) -> None:
    with pytest.raises(PatchError) as caught:
        merge_pod_template({"spec": {"containers": [{"name": "stage"}]}}, patch)
    assert text in str(caught.value)


def test_every_merge_key_is_one_of_a_pod_template() -> None:
    assert all(key in {"name", "containerPort", "mountPath", "devicePath", "ip", "topologyKey"} for key in
               MERGE_KEYS.values())  # fmt: skip


def _without_empty(value: Any) -> Any:
    """Without empty mappings and lists, which kubectl's typed printing leaves out."""
    if isinstance(value, dict):
        cleaned = {name: _without_empty(inner) for name, inner in value.items()}
        return {name: inner for name, inner in cleaned.items() if inner not in ({}, [], None)}
    if isinstance(value, list):
        return [_without_empty(element) for element in value]
    return value
