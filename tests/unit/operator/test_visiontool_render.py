"""What a VisionTool is made of: pure, the same for the same tool, and what the cluster and the server accept."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from thinkimg_operator.settings import BACKENDS_WITH_IMAGES, VERSION, Settings, parse_settings
from thinkimg_operator.visiontool.reconcile import parse
from thinkimg_operator.visiontool.render import (
    child_name,
    claims_of,
    is_self_contained,
    render,
    selector_of,
    server_config,
)

from thinkimg.api import Batching
from thinkimg.api.server_contract import Label
from thinkimg.api.v1alpha1 import VisionTool
from thinkimg.api.v1alpha1.visiontool import BUILT_IN_TOOLS
from thinkimg.serving.config import ServerConfig, parse_config
from thinkimg.tools.registry import find_tool

QUICK = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
Body = dict[str, Any]

names = st.from_regex(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)
specs = st.fixed_dictionaries(
    {"tool": st.sampled_from(BUILT_IN_TOOLS)},
    optional={
        "replicas": st.integers(0, 5),
        "autoscaling": st.builds(
            lambda low, more: {"minReplicas": low, "maxReplicas": low + more}, *[st.integers(1, 4)] * 2
        ),
        "image": st.just("registry.example.com/tool:2"),
        "resources": st.just({"limits": {"nvidia.com/gpu": 1}}),
        "weights": st.sampled_from([{"uri": "hf://org/name"}, {"uri": "pvc://models/a"}, {"claimName": "cache"}]),
        "auth": st.just({"secretRef": {"name": "tool-key"}}),
        "drainSeconds": st.integers(0, 100),
        "shmSize": st.just("1Gi"),
        "env": st.just([{"name": "HOME", "value": "/home"}, {"name": "A", "value": "1"}]),
        "podTemplatePatch": st.just({"spec": {"containers": [{"name": "tool", "workingDir": "/work"}]}}),
    },
)


def tool(name: str = "ocr", **spec: Any) -> VisionTool:
    return parse(
        {
            "apiVersion": "thinkimg.dev/v1alpha1",
            "kind": "VisionTool",
            "metadata": {"name": name, "namespace": "team"},
            "spec": {"tool": "OCR", **spec},
        }
    )


def by_kind(children: list[Body]) -> dict[str, Body]:
    return {child["kind"]: child for child in children}


def container(found: VisionTool, **options: Any) -> Body:
    deployment = by_kind(render(found, Settings(**options)))["Deployment"]
    (only,) = deployment["spec"]["template"]["spec"]["containers"]
    return only


@QUICK
@given(names, specs)
def test_the_same_tool_gives_the_same_children_and_stays_as_it_is(name: str, spec: Body) -> None:
    given_spec = copy.deepcopy(spec)
    first = json.dumps(render(tool(name, **spec), Settings()), sort_keys=True)
    assert json.dumps(render(tool(name, **spec), Settings()), sort_keys=True) == first
    assert spec == given_spec


@QUICK
@given(names, specs)
def test_children_have_names_and_labels_that_the_api_accepts_and_select_the_tools_pods_only(
    name: str, spec: Body
) -> None:
    children = render(tool(name, **spec), Settings(service_monitors=True))
    keys = {(child["kind"], child["metadata"]["name"]) for child in children}
    assert len(keys) == len(children)
    for child in children:
        assert re.fullmatch(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", child["metadata"]["name"])
        assert child["metadata"]["labels"][Label.TOOL] == name
        assert child["metadata"]["namespace"] == "team"
    deployment = by_kind(children)["Deployment"]
    assert deployment["spec"]["selector"]["matchLabels"] == {Label.TOOL: name}
    assert selector_of(name) == f"{Label.TOOL}={name}"


@QUICK
@given(names, specs)
def test_every_server_starts_with_a_configuration_that_it_understands(name: str, spec: Body) -> None:
    config = ServerConfig.model_validate(server_config(tool(name, **spec).spec))
    assert config.drain_seconds == spec.get("drainSeconds", 30)


@QUICK
@given(names, specs)
def test_servers_are_restricted_whatever_the_spec(name: str, spec: Body) -> None:
    pod = by_kind(render(tool(name, **spec), Settings()))["Deployment"]["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (only,) = pod["containers"]
    assert only["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["terminationGracePeriodSeconds"] >= spec.get("drainSeconds", 30) + 5


@QUICK
@given(names, names)
def test_children_of_two_tools_never_share_a_name(one: str, other: str) -> None:
    if one != other:
        assert child_name(one, "pods") != child_name(other, "pods")


@QUICK
@given(names, specs, st.integers(0, 9))
def test_the_number_of_servers_rolls_nothing_out(name: str, spec: Body, replicas: int) -> None:
    """Only what a server is may change its pod template; a change of the number must not replace servers."""
    before, after = tool(name, **spec), tool(name, **{**spec, "replicas": replicas})
    templates = [by_kind(render(t, Settings()))["Deployment"]["spec"]["template"] for t in (before, after)]
    assert templates[0] == templates[1]
    assert by_kind(render(after, Settings()))["Deployment"]["spec"]["replicas"] == replicas


def test_gpus_shared_memory_and_weights() -> None:
    found = tool(
        resources={"limits": {"nvidia.com/gpu": 2}},
        shmSize="8Gi",
        weights={"uri": "pvc://models/ocr", "claimName": "cache", "secretRef": {"name": "hub"}},
    )
    pod = by_kind(render(found, Settings()))["Deployment"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"] == {"limits": {"nvidia.com/gpu": "2"}}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "8Gi"}
    assert volumes["weights"]["persistentVolumeClaim"] == {"claimName": "models", "readOnly": True}
    assert volumes["cache"]["persistentVolumeClaim"] == {"claimName": "cache"}
    mounts = {mount["name"]: mount for mount in pod["containers"][0]["volumeMounts"]}
    assert mounts["shm"]["mountPath"] == "/dev/shm"
    assert mounts["weights"]["readOnly"] is True
    assert claims_of(found.spec) == ["cache", "models"]
    token = {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}
    assert token in pod["containers"][0]["env"]


@pytest.mark.parametrize(
    ("spec", "surge"),
    [
        ({}, 1),
        ({"resources": {"limits": {"cpu": "2", "memory": "4Gi", "hugepages-2Mi": "2Mi"}}}, 1),
        ({"resources": {"limits": {"nvidia.com/gpu": 1}}}, 0),
        ({"resources": {"limits": {"nvidia.com/gpu": 0}}}, 1),
        ({"resources": {"limits": {"amd.com/gpu": 1}}, "updateStrategy": "Surge"}, 1),
        ({"updateStrategy": "Replace"}, 0),
        ({"weights": {"uri": "pvc://models/sam"}}, 0),
        ({"weights": {"uri": "hf://org/sam", "claimName": "cache"}}, 0),
        ({"weights": {"uri": "hf://org/sam"}}, 1),
        ({"podTemplatePatch": {"spec": {"resourceClaims": [{"name": "gpu"}]}}}, 0),
        (
            {
                "podTemplatePatch": {
                    "spec": {"containers": [{"name": "tool", "resources": {"limits": {"nvidia.com/mig-1g.5gb": 1}}}]}
                }
            },
            0,
        ),
        ({"podTemplatePatch": {"metadata": {"labels": {"kueue.x-k8s.io/queue-name": "team"}}}}, 0),
    ],
)
def test_who_may_find_no_room_beside_the_old_server_takes_its_place(spec: Body, surge: int) -> None:
    found = by_kind(render(tool(tool="SAM", **spec), Settings()))["Deployment"]["spec"]["strategy"]
    assert found == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1 - surge, "maxSurge": surge}}


@pytest.mark.parametrize(
    "patch",
    [
        {"$patch": "replace"},
        {"metadata": None},
        {"spec": {"$patch": "replace"}},
        {"spec": {"containers": None}},
        {"spec": {"containers": [{"name": "tool", "resources": {"limits": ["nvidia.com/gpu"]}}]}},
    ],
)
def test_a_patch_that_leaves_no_pod_template_is_for_the_api_server_to_refuse(patch: Body) -> None:
    assert by_kind(render(tool(podTemplatePatch=patch), Settings()))["Deployment"]["spec"]["template"] is not None


def test_a_key_is_handed_over_by_reference() -> None:
    found = tool(auth={"secretRef": {"name": "tool-key", "key": "k"}})
    reference = {"secretKeyRef": {"name": "tool-key", "key": "k"}}
    assert {"name": "THINKIMG_TOOL_API_KEY", "valueFrom": reference} in container(found)["env"]


def test_weights_come_when_the_pod_starts_into_the_volume_that_is_kept() -> None:
    found = container(tool(weights={"claimName": "kept"}))
    said = {variable["name"]: variable.get("value") for variable in found["env"]}
    assert said["THINKIMG_FETCH_WEIGHTS"] == "1"
    assert said["THINKIMG_WEIGHTS"] == "/var/cache/thinkimg/weights"
    assert {"name": "cache", "mountPath": "/var/cache/thinkimg"} in found["volumeMounts"]


def test_the_users_variables_win_and_none_is_there_twice() -> None:
    variables = container(tool(env=[{"name": "HOME", "value": "/home"}]))["env"]
    assert [variable for variable in variables if variable["name"] == "HOME"] == [{"name": "HOME", "value": "/home"}]


@pytest.mark.parametrize(
    ("images", "backend", "expected"),
    [
        ({}, None, f"ghcr.io/thinkimg/tool:{VERSION}"),
        ({}, "paddleocr", f"ghcr.io/thinkimg/tool-paddleocr:{VERSION}"),
        ({"*": "all:1"}, None, "all:1"),
        ({"*": "all:1", "OCR": "ocr:1"}, "rapidocr", "ocr:1"),
        ({"*": "all:1", "OCR": "ocr:1", "OCR/rapidocr": "rapid:1"}, "rapidocr", "rapid:1"),
    ],
)
def test_the_image_is_the_most_special_one_that_is_set(
    images: dict[str, str], backend: str | None, expected: str
) -> None:
    spec = {"backend": backend} if backend else {}
    assert container(tool(**spec), tool_images=images)["image"] == expected
    assert container(tool(image="own:1", **spec), tool_images=images)["image"] == "own:1"


def test_backends_with_an_image_of_their_own_are_those_that_are_built() -> None:
    bake = (Path(__file__).parents[3] / "docker-bake.hcl").read_text()
    [matrix] = re.findall(r"extra = (\[.*?\])", bake)
    assert set(json.loads(matrix)) == BACKENDS_WITH_IMAGES


@pytest.mark.parametrize("name", BUILT_IN_TOOLS)
def test_without_a_backend_the_image_is_that_of_the_first(name: str) -> None:
    assert Settings().tool_image(name, None) == Settings().tool_image(name, find_tool(name).backends[0])


def test_stages_run_the_trainer_of_the_same_version_unless_told_otherwise() -> None:
    assert Settings().stage_image == f"ghcr.io/thinkimg/trainer:{VERSION}"
    mirrored = parse_settings(["run", "--image-prefix=localhost:5000/", "--image-tag=2"])
    assert mirrored.stage_image == "localhost:5000/trainer:2"
    assert mirrored.tool_image("SAM", None) == "localhost:5000/tool-segment-anything:2"
    assert parse_settings(["run", "--runtime-image=own:1"]).stage_image == "own:1"


def test_batching_reaches_the_server_and_its_default_changes_no_pod() -> None:
    assert "batching" not in server_config(tool().spec)["tools"][0]  # the annotation, and so the pod, stays as it was
    config = server_config(tool(batching={"maxSize": 3, "maxWaitMilliseconds": 20}).spec)
    assert parse_config(config).tools[0].batching == Batching(max_size=3, max_wait_milliseconds=20)


def test_prometheus_selects_service_monitors_by_labels_of_its_own() -> None:
    selected = parse_settings(["run", "--service-monitors", "--service-monitor-label=release=prometheus"])
    monitor = by_kind(render(tool(), selected))["ServiceMonitor"]
    assert monitor["metadata"]["labels"].items() >= {"release": "prometheus", Label.TOOL: "ocr"}.items()


def test_a_tool_of_ones_own_keeps_its_command_and_its_user() -> None:
    found = tool(tool="Custom", image="registry.example.com/mine:1")
    pod = by_kind(render(found, Settings()))["Deployment"]["spec"]["template"]["spec"]
    assert "command" not in pod["containers"][0]
    assert "runAsUser" not in pod["securityContext"]


def test_who_needs_no_network_gets_none_and_nobody_reaches_the_clouds_credentials() -> None:
    assert is_self_contained(tool().spec)
    assert "egress" not in by_kind(render(tool(), Settings()))["NetworkPolicy"]["spec"]
    policy = by_kind(render(tool(tool="SAM"), Settings()))["NetworkPolicy"]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    everywhere, names = policy["egress"]
    kept = {block["ipBlock"]["cidr"]: block["ipBlock"]["except"] for block in everywhere["to"] if "ipBlock" in block}
    assert {"169.254.0.0/16", "100.100.100.200/32", "168.63.129.16/32"} <= set(kept["0.0.0.0/0"])
    assert {"fe80::/10", "fd00:ec2::254/128", "fd20:ce::254/128"} <= set(kept["::/0"])
    assert {port["port"] for port in names["ports"]} == {53}


def test_a_budget_exists_where_there_is_something_to_budget() -> None:
    assert "PodDisruptionBudget" not in by_kind(render(tool(replicas=1), Settings()))
    assert "PodDisruptionBudget" in by_kind(render(tool(replicas=2), Settings()))
    assert "PodDisruptionBudget" in by_kind(render(tool(autoscaling={"maxReplicas": 2}), Settings()))


@pytest.mark.parametrize(
    ("scaling", "metric"),
    [
        ({"metric": "CPU", "target": 60}, {"averageUtilization": 60, "type": "Utilization"}),
        ({"metric": "InFlight", "target": 8}, {"averageValue": "8", "type": "AverageValue"}),
    ],
)
def test_the_autoscaler_scales_the_tool(scaling: Body, metric: Body) -> None:
    found = by_kind(render(tool(autoscaling={"maxReplicas": 4, **scaling}), Settings()))["HorizontalPodAutoscaler"]
    assert found["spec"]["scaleTargetRef"] == {
        "apiVersion": "thinkimg.dev/v1alpha1",
        "kind": "VisionTool",
        "name": "ocr",
    }
    (only,) = found["spec"]["metrics"]
    assert only[{"Resource": "resource", "Pods": "pods"}[only["type"]]]["target"] == metric


def test_a_patch_is_merged_last() -> None:
    patch = {"spec": {"containers": [{"name": "tool", "readinessProbe": None}], "hostNetwork": True}}
    pod = by_kind(render(tool(podTemplatePatch=patch), Settings()))["Deployment"]["spec"]["template"]["spec"]
    assert pod["hostNetwork"] is True
    assert "readinessProbe" not in pod["containers"][0]
    assert pod["containers"][0]["livenessProbe"]
