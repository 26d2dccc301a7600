"""The operator's chart with `admissionPolicy` on a real API server: a fenced namespace takes what is plain, and refuses
by name each field that runs code of the user's, mounts what he chooses, or sends a secret where he chooses."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any

import binaries
import pytest
import yaml

from tests.support import REPOSITORY
from tests.support.api.manifest_examples import JOB, TOOL, changed, setting
from tests.support.cluster.testcluster import Cluster, Namespace, Object, wait_for
from tests.support.operator.admission import checked, refused

LABEL = "thinkimg.dev/admission-policy=enforced"
VALUES = {
    "enabled": True,
    "images": ["registry.example.com/vision/"],
    "endpoints": ["https://models.example.com/v1"],
    "secrets": ["hub", "tool-key"],
}
HUB, OTHER = {"name": "hub", "key": "token"}, {"name": "other", "key": "token"}
ENDPOINT, ELSEWHERE = VALUES["endpoints"][0], "https://elsewhere.example.com/v1"  # type: ignore[index]


def judge(url: str) -> Object:
    return {"name": "judge", "judge": {"baseUrl": url, "model": "some"}}


def planner(url: str, secret: Object) -> Object:
    return {"type": "Model", "model": {"baseUrl": url, "name": "some", "secretRef": secret}}


REWARDS = "spec.stages.2.grpo.rewards"
BAD: dict[str, list[tuple[str, str, Any]]] = {
    "VisionTool": [
        # the field as the policy names it, where it is written, what
        ("spec.image", "spec.image", "registry.example.com/other:1"),
        ("spec.imagePullSecrets", "spec.imagePullSecrets", [{"name": "other"}]),
        ("spec.serviceAccountName", "spec.serviceAccountName", "default"),
        ("spec.runtimeClassName", "spec.runtimeClassName", "loose"),
        ("spec.env", "spec.env", [{"name": "LD_PRELOAD", "value": "/mine.so"}]),
        ("spec.podTemplatePatch", "spec.podTemplatePatch", {"spec": {"hostNetwork": True}}),
        ("spec.weights.claimName", "spec.weights", {"claimName": "others"}),
        ("spec.weights.uri", "spec.weights", {"uri": "pvc://others/weights"}),
        ("spec.weights.secretRef.name", "spec.weights", {"uri": "hf://a/b", "secretRef": OTHER}),
        ("spec.auth.secretRef.name", "spec.auth", {"secretRef": OTHER}),
        ("spec.options.trustRemoteCode", "spec.options", {"trustRemoteCode": True}),
        ("spec.options.trust_remote_code", "spec.options", {"trust_remote_code": True}),
        ("spec.options.endpoint", "spec.options", {"endpoint": ELSEWHERE}),
        ("spec.options.detector.trustRemoteCode", "spec.options", {"detector": {"trustRemoteCode": True}}),
        ("spec.options.detector.trust_remote_code", "spec.options", {"detector": {"trust_remote_code": True}}),
        ("spec.options.segmenter.trustRemoteCode", "spec.options", {"segmenter": {"trustRemoteCode": True}}),
        ("spec.options.segmenter.trust_remote_code", "spec.options", {"segmenter": {"trust_remote_code": True}}),
    ],
    "ToolRLJob": [
        ("spec.image", "spec.image", "registry.example.com/visionary:1"),
        ("spec.imagePullSecrets", "spec.imagePullSecrets", [{"name": "other"}]),
        ("spec.serviceAccountName", "spec.serviceAccountName", "default"),
        ("spec.env", "spec.env", [{"name": "A", "valueFrom": {"secretKeyRef": OTHER}}]),
        ("spec.code", "spec.code", {"configMapRef": {"name": "mine"}}),
        ("spec.podTemplatePatch", "spec.podTemplatePatch", {"spec": {"hostPID": True}}),
        ("spec.pods.runtimeClassName", "spec.pods", {"runtimeClassName": "loose"}),
        ("spec.pods.hostNetwork", "spec.pods", {"hostNetwork": True}),
        ("spec.stages[].pods.image", "spec.stages.1.pods", {"image": "registry.example.com/visionary:1"}),
        ("spec.stages[].pods.runtimeClassName", "spec.stages.1.pods", {"runtimeClassName": "loose"}),
        ("spec.stages[].pods.hostNetwork", "spec.stages.1.pods", {"hostNetwork": True}),
        (
            "spec.stages[].pods.podTemplatePatch",
            "spec.stages.1.pods",
            {"podTemplatePatch": {"spec": {"hostPID": True}}},
        ),
        ("spec.storage.claimName", "spec.storage", {"claimName": "others"}),
        ("spec.model.uri", "spec.model.uri", "pvc://others/model"),
        ("spec.model.trustRemoteCode", "spec.model.trustRemoteCode", True),
        ("spec.model.secretRef.name", "spec.model.secretRef", OTHER),
        ("spec.secretRefs[].name", "spec.secretRefs", [{"name": "hub"}, {"name": "other"}]),
        ("spec.data.train.uri", "spec.data.train.uri", "pvc://others/data.jsonl"),
        ("spec.data.validation.uri", "spec.data.validation", {"uri": "pvc://others/data.jsonl"}),
        ("spec.data.trajectories.uri", "spec.data.trajectories", {"uri": "pvc://others/data.jsonl"}),
        ("spec.data.test.uri", "spec.data.test.uri", "pvc://others/data.jsonl"),
        ("spec.scorer.name", "spec.scorer", {"name": "os:system"}),
        ("spec.scorer.judge.baseUrl", "spec.scorer", judge(ELSEWHERE)),
        ("spec.stages[].scorer.name", "spec.stages.3.scorer", {"name": "os:system"}),
        ("spec.stages[].scorer.judge.baseUrl", "spec.stages.3.scorer", judge(ELSEWHERE)),
        ("spec.stages[].grpo.rewards[].name", REWARDS, [{"name": "accuracy"}, {"name": "os:system"}]),
        ("spec.stages[].grpo.rewards[].judge.baseUrl", REWARDS, [judge(ELSEWHERE)]),
        (
            "spec.stages[].synthesize.planner.model.baseUrl",
            "spec.stages.0.synthesize.planner",
            planner(ELSEWHERE, HUB),
        ),
        (
            "spec.stages[].synthesize.planner.model.secretRef.name",
            "spec.stages.0.synthesize.planner",
            planner(ENDPOINT, OTHER),
        ),
        ("spec.stages[].sft.args", "spec.stages.1.sft.args", {"deepspeed": {"some": 1}}),
        ("spec.stages[].grpo.args", "spec.stages.2.grpo.args", {"model_init_kwargs": {"some": 1}}),
    ],
}
GOOD: list[tuple[str, str, Any]] = [
    (TOOL, "spec.image", "registry.example.com/vision/ocr:1"),
    (TOOL, "spec.auth", {"secretRef": HUB}),
    (TOOL, "spec.weights", {"uri": "hf://a/b", "secretRef": HUB}),
    (TOOL, "spec.options", {"endpoint": ENDPOINT, "model": "some", "detector": {"weights": "a/b"}}),
    (TOOL, "spec.tolerations", [{"key": "gpu", "operator": "Exists"}]),
    (JOB, "spec.image", "registry.example.com/vision/trainer:1"),
    (JOB, "spec.pods", {"nodeSelector": {"gpu": "h100"}, "tolerations": [{"operator": "Exists"}]}),
    (JOB, "spec.stages.1.pods", {"image": "registry.example.com/vision/trainer:2", "priorityClassName": "low"}),
    (JOB, "spec.model", {"uri": "hf://a/b", "trustRemoteCode": False, "secretRef": HUB}),
    (JOB, "spec.secretRefs", [{"name": "hub"}]),
    (JOB, "spec.scorer", judge(ENDPOINT)),
    (JOB, REWARDS, [{"name": "accuracy"}, judge(ENDPOINT)]),
    (JOB, "spec.stages.0.synthesize.planner", planner(ENDPOINT, HUB)),
    (JOB, "spec.stages.1.sft.args", {"bf16": True, "warmup_steps": 2}),
]


@pytest.fixture(scope="module")
def fenced(cluster: Cluster) -> Iterator[Namespace]:
    """A namespace with the label, when the API server has begun to enforce the policies."""
    chart = REPOSITORY / "charts" / "thinkimg-operator"
    command = [binaries.ensure(["helm"])["helm"], "template", "fence", chart, "--show-only", "templates/admission.yaml"]
    given = yaml.safe_dump({"admissionPolicy": VALUES})
    environment = {**os.environ, "KUBECONFIG": "/nonexistent"}
    policies = subprocess.run(
        [*map(str, command), "--values", "-"], input=given, check=True, capture_output=True, text=True, env=environment
    ).stdout
    cluster.kubectl("apply", "-f", "-", stdin=policies)
    try:
        with cluster.namespace("fenced") as namespace:
            cluster.kubectl("label", "namespace", namespace.name, LABEL)
            for text in (TOOL, JOB):
                bad = yaml.safe_load(changed(text, setting("spec.podTemplatePatch", {"spec": {}})))
                wait_for("the policies are enforced", lambda bad=bad: create(namespace, bad)[0] == 422)
            yield namespace
    finally:
        cluster.kubectl("delete", "-f", "-", stdin=policies)


def create(namespace: Namespace, document: Object, query: str = "?dryRun=All") -> tuple[int, Object]:
    plural = f"{document['kind'].lower()}s"
    path = f"/apis/thinkimg.dev/v1alpha1/namespaces/{namespace.name}/{plural}"
    return namespace.cluster.request("POST", path + query, document)


def test_each_field_that_is_fenced_is_tried() -> None:
    for kind, cases in BAD.items():
        assert {field for field, _, _ in cases} - ARGS == refused(kind) | checked(kind).keys()


ARGS = {"spec.stages[].sft.args", "spec.stages[].grpo.args"}
"""Of these an allow list of names is let through."""


def test_each_is_refused_by_name_there_and_nowhere_else(fenced: Namespace, namespace: Namespace) -> None:
    for kind, text in (("VisionTool", TOOL), ("ToolRLJob", JOB)):
        for field, place, value in BAD[kind]:
            document = yaml.safe_load(changed(text, setting(place, value)))
            status, said = create(fenced, document)
            assert status == 422, (field, said)
            assert f"denied request: {field} " in said["message"], said["message"]
            status, said = create(namespace, document)
            assert status == 201, (field, said)


def test_what_is_plain_or_listed_is_taken(fenced: Namespace) -> None:
    shipped = [
        document
        for name in ("visiontool.yaml", "toolrljob.yaml", "toolrljob-cpu.yaml", "toolrljob-smoke.yaml")
        for document in yaml.safe_load_all((REPOSITORY / "manifests" / name).read_text())
        if document["spec"].get("tool") != "Custom"  # its image is the user's
    ]
    for document in shipped:
        document["spec"].get("weights", {}).pop("claimName", None)  # it mounts a claim: refused above
    listed = [yaml.safe_load(changed(text, setting(place, value))) for text, place, value in GOOD]
    for document in [*shipped, *map(yaml.safe_load, (TOOL, JOB)), *listed]:
        status, said = create(fenced, document)
        assert status == 201, (json.dumps(document)[:300], said.get("message"))


def test_what_is_older_than_the_label_stays_changeable_but_for_its_spec(fenced: Namespace) -> None:
    cluster = fenced.cluster
    cluster.kubectl("label", "namespace", fenced.name, "thinkimg.dev/admission-policy-")
    bad = yaml.safe_load(
        changed(TOOL, setting("metadata.name", "older"), setting("spec.serviceAccountName", "default"))
    )
    wait_for("the namespace is free", lambda: create(fenced, bad, "")[0] == 201)
    cluster.kubectl("label", "namespace", fenced.name, LABEL)
    another = yaml.safe_load(changed(TOOL, setting("metadata.name", "newer"), setting("spec.serviceAccountName", "a")))
    wait_for("it is fenced again", lambda: create(fenced, another)[0] == 422)
    path = f"/apis/thinkimg.dev/v1alpha1/namespaces/{fenced.name}/visiontools/older"
    kind = "application/merge-patch+json"
    status, _ = cluster.request("PATCH", path, {"metadata": {"labels": {"a": "b"}}}, content_type=kind)
    assert status == 200
    status, said = cluster.request("PATCH", path, {"spec": {"replicas": 3}}, content_type=kind)
    assert status == 422
    assert "spec.serviceAccountName" in said["message"]
