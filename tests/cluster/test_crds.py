"""The CRDs on a real API server: accepted, defaulted, readable, and refusing what the loader refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.api.manifest_examples import JOB, TOOL, Change, changed, problems_of, setting, without
from tests.support.api.manifest_refusals import JOB_REFUSALS, TOOL_REFUSALS
from tests.support.cluster.testcluster import CRDS, Cluster, KubectlError, Namespace
from thinkimg.api.v1alpha1 import ToolRLJob, VisionTool
from thinkimg.api.v1alpha1.crd import definitions
from thinkimg.api.v1alpha1.fields import declared_fields

Object = dict[str, Any]
MANIFESTS = sorted(
    # kind.yaml is for kind, not for an API server: tests/e2e makes its cluster from it.
    path
    for path in (Path(__file__).parents[2] / "manifests").glob("*.yaml")
    if path.name != "kind.yaml"
)
RESOURCES: dict[str, type[VisionTool] | type[ToolRLJob]] = {"VisionTool": VisionTool, "ToolRLJob": ToolRLJob}

ONLY_THE_LOADER = {
    "passes that do not divide the batch": "CEL cannot look into args",
    "passes that are cut twice": "CEL cannot look into args",
}
"""Refusals that the API server cannot make; the operator says Accepted=False for them."""

SERVER_SAYS = {
    # by name of the case: a part of what the server says, for rules that people meet most
    "a long job name": "metadata.name: it is not a valid name. Use 1 to 30 of a-z, 0-9 and '-'",
    "the reserved stage name": '"base" is reserved: it names the model before any stage. Use another name.',
    "two stages of one name": 'spec.stages[1]: Duplicate value: {"name":"cold"}',
    "a model over https": "it is not understood. Write hf://org/name, pvc://claim/path or preset://tiny.",
    "data outside the storage root": "it leaves the storage root. Name a path below the storage root, without '..'.",
    "thirteen stages": "Too many: 13: must have at most 12 items",
    "a stage that starts from a later one": "stages[].from names no earlier stage that trains a model.",
    "a stage that starts from nowhere": "stages[].from names no earlier stage that trains a model.",
    "an evaluation that starts from a model": "only stages of type SFT and GRPO start from a model.",
    "the block of another type": "grpo belongs to stages of type GRPO, which need it; no other stage has it.",
    "no block": "sft belongs to stages of type SFT, which need it; no other stage has it.",
    "an unknown type": 'Unsupported value: "PPO": supported values: "Synthesize", "SFT", "GRPO", "Evaluate"',
    "two lengths": "more than one of epochs, maxSteps, maxTokens and maxSeconds is given. Keep the one that is meant.",
    "a length from a later stage": "sft.maxSeconds.fromStage names no earlier stage.",
    "trajectories from a training stage": "sft.dataFrom names no earlier stage of type Synthesize.",
    "SFT with nothing to learn from": "an SFT stage has no trajectories to learn from",
    "a batch that two processes cannot share": "sft.batchSize cannot be shared equally",
    "groups that would straddle processes": "grpo.promptsPerStep cannot be shared equally",
    "passes that do not divide a process's rollouts": "grpo.microBatch does not divide the rollouts of a process.",
    "a row without a stage": "evaluate.models names something that is no earlier stage with a model.",
    "a split without data": "a stage evaluates a split that spec.data does not have.",
    "tools wanted and none given": "a stage calls tools, but there are none.",
    "a reserved environment variable": "it is reserved: ThinkIMG sets it itself.",
    "an environment variable with two sources": "it has both value and valueFrom. Keep one of them.",
    "a claim that exists and is made": "size says how to make a claim, but claimName names one.",
    "a size without sense": "spec.storage.size in body should match",
    "a rule that fits nothing": "the rule fits nothing. Give onExitCodes or onPodReasons.",
    "a rule for a stage that is not there": "failurePolicy.rules[].stages names a stage that does not exist.",
    "a pause that shrinks": "maxBackoffSeconds is less than backoffSeconds. Raise it.",
    "an unknown reward": "there is no such reward. Built in are accuracy, format, ",
    "an unknown field": 'unknown field "spec.modle"',
    "an unknown tool": "it is not a tool of ThinkIMG. Those are GroundingDINO, SAM, OCR",
    "a custom tool without an image": "a Custom tool has no image. Name an image that serves the wire protocol.",
    "bounds the wrong way round": "maxReplicas is less than minReplicas.",
}


def path_of(namespace: Namespace, kind: str, name: str = "") -> str:
    return f"/apis/thinkimg.dev/v1alpha1/namespaces/{namespace.name}/{kind.lower()}s{f'/{name}' if name else ''}"


def create(namespace: Namespace, document: Object, *, dry_run: bool = True) -> tuple[int, Object]:
    """Create it as kubectl does: unknown fields are an error. Status code and answer."""
    query = "?fieldValidation=Strict" + ("&dryRun=All" if dry_run else "")
    return namespace.cluster.request("POST", path_of(namespace, document["kind"]) + query, document)


@pytest.fixture(scope="module")
def place(cluster: Cluster) -> Iterator[Namespace]:
    """One namespace for all the tests that only ask and leave nothing."""
    with cluster.namespace("crds") as namespace:
        yield namespace


def test_plain_apply_takes_them_and_a_second_one_changes_nothing(cluster: Cluster) -> None:
    said = cluster.kubectl("apply", "-f", str(CRDS))
    assert [line.rpartition(" ")[2] for line in said.splitlines()] == ["unchanged", "unchanged"]


def test_each_is_far_below_the_limit_of_plain_apply() -> None:
    """`kubectl apply` keeps a copy in an annotation, and annotations have 262,144 bytes together."""
    assert {file.name: file.stat().st_size for file in CRDS.iterdir() if file.stat().st_size >= 131_072} == {}


@pytest.mark.parametrize("definition", definitions(), ids=lambda definition: definition["spec"]["names"]["kind"])
def test_the_server_finds_nothing_to_complain_about(cluster: Cluster, definition: Object) -> None:
    _, stored = cluster.request(
        "GET", f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{definition['metadata']['name']}"
    )
    conditions = {condition["type"]: condition["status"] for condition in stored["status"]["conditions"]}
    assert conditions["Established"] == "True"
    assert conditions["NamesAccepted"] == "True"
    assert conditions.get("NonStructuralSchema", "False") == "False"


@pytest.mark.parametrize("file", MANIFESTS, ids=lambda file: file.name)
def test_every_shipped_manifest_is_taken_and_means_the_same_there(place: Namespace, file: Path) -> None:
    for document in yaml.safe_load_all(file.read_text()):
        if not document["apiVersion"].startswith("thinkimg.dev/"):
            continue
        status, stored = create(place, document)
        assert status == 201, stored["message"]
        resource = RESOURCES[document["kind"]]
        local = resource.model_validate(document, by_alias=True, by_name=False)
        there = resource.model_validate(stored, by_alias=True, by_name=False)
        assert there.spec == local.spec


def test_kubectl_applies_them_to_a_new_namespace(namespace: Namespace) -> None:
    for file in MANIFESTS:
        namespace.kubectl("apply", "-f", str(file))
    names = {item["metadata"]["name"] for item in namespace.list("trj")}
    assert {"demo", "chart-reader"} <= names


CASES = [(JOB, *case) for case in JOB_REFUSALS] + [(TOOL, *case) for case in TOOL_REFUSALS]


@pytest.mark.parametrize(
    ("text", "name", "change"), [case[:3] for case in CASES], ids=[f"{c[0].split()[3]}: {c[1]}" for c in CASES]
)
def test_the_server_refuses_what_the_loader_refuses(place: Namespace, text: str, name: str, change: Change) -> None:
    document = yaml.safe_load(changed(text, change))
    if "Infinity" in json.dumps(document):
        pytest.skip("JSON has no infinite numbers: the client refuses it")
    status, answer = create(place, document)
    if name in ONLY_THE_LOADER:
        assert status == 201, f"the server can refuse it after all: {answer['message']}"
        return
    assert status in (400, 422), f"the server takes it: {answer}"
    if name in SERVER_SAYS:
        assert SERVER_SAYS[name] in answer["message"]


@pytest.mark.parametrize("uri", ["/models/x", "models/x", "runs/demo/v-toolrl", "Qwen/Qwen2-VL-2B-Instruct"])
def test_the_server_refuses_a_model_by_path_which_a_local_run_takes(place: Namespace, uri: str) -> None:
    document = yaml.safe_load(changed(JOB, setting("spec.model.uri", uri)))
    assert ToolRLJob.model_validate(document, by_alias=True, by_name=False).spec.model.uri == uri
    status, answer = create(place, document)
    assert status == 422
    assert "it is not understood. Write hf://org/name, pvc://claim/path or preset://tiny." in answer["message"]


def test_no_expectation_is_for_a_case_that_is_gone() -> None:
    assert SERVER_SAYS.keys() | ONLY_THE_LOADER.keys() <= {case[1] for case in CASES}


TAKEN: list[tuple[str, str, Change]] = [
    ("a default that is written out", JOB, setting("spec.seed", None)),
    ("nothing for a text", JOB, setting("spec.image", None)),
    ("nothing deep inside", JOB, setting("spec.stages.1.sft.epochs", None)),
    ("all of one length", JOB, setting("spec.stages.1.sft", {"epochs": 0.5})),
    ("a length from an earlier stage", JOB, setting("spec.stages.1.sft", {"maxSeconds": {"fromStage": "cold"}})),
    ("arguments of TRL", JOB, setting("spec.stages.1.sft.args", {"warmup_steps": 2, "lr_scheduler_type": "cosine"})),
    ("a number of GPUs", JOB, setting("spec.stages.1.resources", {"limits": {"nvidia.com/gpu": 8, "cpu": "0.5"}})),
    ("data on a claim", JOB, setting("spec.data.test.uri", "pvc://data/test.jsonl")),
    ("data at a relative path", JOB, setting("spec.data.test.uri", "data/test.jsonl")),
    ("a model of the hub", JOB, setting("spec.model", {"uri": "hf://Qwen/Qwen2-VL-2B-Instruct", "revision": "main"})),
    ("a reward of one's own", JOB, setting("spec.stages.2.grpo.rewards", [{"name": "my.rewards:brevity"}])),
    ("a longest name", JOB, setting("metadata.name", "a" * 30)),
    ("no stage that calls tools", JOB, setting("spec.stages.2.grpo.toolUse", "Disabled")),
    (
        "a value from a secret",
        JOB,
        setting("spec.env", [{"name": "K", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]),
    ),
    (
        "a value from the pod",
        JOB,
        setting("spec.env", [{"name": "K", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]),
    ),
    (
        "a rule for one stage",
        JOB,
        setting("spec.failurePolicy.rules", [{"action": "Fail", "stages": ["sft"], "onPodReasons": ["OOMKilled"]}]),
    ),
    ("a tool of one's own", TOOL, setting("spec", {"tool": "Custom", "image": "registry.example.com/x:1"})),
    ("a tool of an own package", TOOL, setting("spec", {"tool": "CountBars", "image": "registry.example.com/x:1"})),
    ("no replicas", TOOL, setting("spec.replicas", 0)),
    ("a toleration", TOOL, setting("spec.tolerations", [{"key": "nvidia.com/gpu", "operator": "Exists"}])),
]


@pytest.mark.parametrize(("text", "change"), [case[1:] for case in TAKEN], ids=[case[0] for case in TAKEN])
def test_both_take(place: Namespace, text: str, change: Change) -> None:
    manifest = changed(text, change)
    assert problems_of(manifest) == []
    document = yaml.safe_load(manifest)
    status, stored = create(place, document)
    assert status == 201, stored["message"]
    resource = RESOURCES[document["kind"]]
    local = resource.model_validate(document, by_alias=True, by_name=False)
    assert resource.model_validate(stored, by_alias=True, by_name=False).spec == local.spec


# --- updates


def update(namespace: Namespace, kind: str, name: str, change: Change) -> tuple[int, Object]:
    """Change the stored object; status code and answer."""
    path = path_of(namespace, kind, name)
    _, stored = namespace.cluster.request("GET", path)
    change(stored)
    return namespace.cluster.request("PUT", f"{path}?fieldValidation=Strict&dryRun=All", stored)


@pytest.fixture(scope="module")
def started(cluster: Cluster) -> Iterator[Namespace]:
    """A namespace with a tool, a job that has not started, and one that has."""
    with cluster.namespace("started") as namespace:
        for text, name in ((TOOL, "ocr"), (JOB, "waiting"), (JOB, "running"), (JOB, "suspended")):
            status, answer = create(
                namespace, yaml.safe_load(changed(text, setting("metadata.name", name))), dry_run=False
            )
            assert status == 201, answer["message"]
        namespace.kubectl("patch", "trj", "suspended", "--type=merge", "--patch", '{"spec": {"suspend": true}}')
        for name in ("running", "suspended"):
            namespace.patch_status("trj", name, {"startTime": "2026-01-01T00:00:00Z"})
        yield namespace


CHANGES: list[tuple[str, Change]] = [
    ("stages", setting("spec.stages.1.sft.maxSteps", 3)),
    ("stages", setting("spec.stages.2.grpo.promptsPerStep", 8)),
    ("stages", lambda job: job["spec"]["stages"].pop()),
    ("model", setting("spec.model.uri", "hf://org/name")),
    ("data", setting("spec.data.train.uri", "charts://?questions=11")),
    ("seed", setting("spec.seed", 9)),
    ("image", setting("spec.image", "x:1")),
    ("env", setting("spec.env", [{"name": "A", "value": "1"}])),
    ("checkpoint", setting("spec.checkpoint.everySteps", 7)),
    ("storage", setting("spec.storage.retentionPolicy", "Delete")),
    ("stages", lambda job: job["spec"]["stages"].reverse()),
]
WHILE_SUSPENDED: list[tuple[str, Change]] = [
    ("pods", setting("spec.pods", {"nodeSelector": {"pool": "other"}})),
    ("stages", setting("spec.stages.0.pods", {"terminationGracePeriodSeconds": 900, "image": "x:1"})),
    ("stages", setting("spec.stages.1.resources", {"limits": {"memory": "1Gi"}})),
]


@pytest.mark.parametrize(("field", "change"), CHANGES)
def test_a_started_job_refuses_a_change_of(started: Namespace, field: str, change: Change) -> None:
    assert update(started, "ToolRLJob", "waiting", change)[0] == 200
    status, answer = update(started, "ToolRLJob", "running", change)
    assert status == 422
    assert f"spec.{field}: Invalid value" in answer["message"]
    assert "it cannot be changed once the job has started" in answer["message"]


@pytest.mark.parametrize(
    "change",
    [
        setting("spec.suspend", True),
        setting("spec.activeDeadlineSeconds", 60),
        setting("spec.ttlSecondsAfterFinished", 60),
        setting("spec.failurePolicy.maxRestarts", 9),
        setting("metadata.labels", {"a": "b"}),
        setting("metadata.annotations", {"a": "b"}),
    ],
    ids=["suspend", "activeDeadlineSeconds", "ttlSecondsAfterFinished", "failurePolicy", "labels", "annotations"],
)
def test_a_started_job_takes_a_change_of(started: Namespace, change: Change) -> None:
    status, answer = update(started, "ToolRLJob", "running", change)
    assert status == 200, answer["message"]


@pytest.mark.parametrize(("field", "change"), WHILE_SUSPENDED)
def test_where_pods_run_changes_only_while_a_started_job_is_suspended(
    started: Namespace, field: str, change: Change
) -> None:
    status, answer = update(started, "ToolRLJob", "running", change)
    assert status == 422
    assert f"spec.{field}: Invalid value" in answer["message"]
    assert "suspend" in answer["message"]
    status, answer = update(started, "ToolRLJob", "suspended", change)
    assert status == 200, answer["message"]


@pytest.mark.parametrize(("field", "change"), CHANGES)
def test_a_suspended_job_is_still_the_same_experiment(started: Namespace, field: str, change: Change) -> None:
    status, answer = update(started, "ToolRLJob", "suspended", change)
    assert status == 422
    assert f"spec.{field}: Invalid value" in answer["message"]


@pytest.mark.parametrize("field", ["nodeSelector", "podTemplatePatch", "image"])
def test_what_is_said_of_pods_beside_pods_is_refused_by_name(started: Namespace, field: str) -> None:
    change = setting(f"spec.stages.0.{field}", {"a": "b"} if field != "image" else "x:1")
    status, answer = update(started, "ToolRLJob", "waiting", change)
    assert status == 400
    assert f'unknown field "spec.stages[0].{field}"' in answer["message"]


def test_the_tool_of_a_visiontool_never_changes(started: Namespace) -> None:
    status, answer = update(started, "VisionTool", "ocr", setting("spec.tool", "Crop"))
    assert status == 422
    assert "it cannot be changed. Delete the object and apply a new one." in answer["message"]


def test_who_manages_a_job_never_changes(started: Namespace) -> None:
    status, answer = update(started, "ToolRLJob", "waiting", setting("spec.managedBy", "example.com/other"))
    assert status == 422
    assert "spec.managedBy: Invalid value" in answer["message"]


def test_the_status_is_written_on_its_own(started: Namespace) -> None:
    """A PUT of the object leaves the status alone, so that an apply cannot reset a job."""
    status, answer = update(started, "ToolRLJob", "running", without("status"))
    assert status == 200, answer["message"]
    assert answer["status"]["startTime"] == "2026-01-01T00:00:00Z"


def test_kubectl_scale_writes_replicas(started: Namespace) -> None:
    started.patch_status("vt", "ocr", {"replicas": 1, "selector": "app.kubernetes.io/instance=ocr"})
    started.kubectl("scale", "vt/ocr", "--replicas=3")
    scale = started.get("vt", "ocr", subresource="scale")
    assert scale is not None
    assert (scale["spec"]["replicas"], scale["status"]["replicas"]) == (3, 1)
    assert scale["status"]["selector"] == "app.kubernetes.io/instance=ocr"


# --- what people read


def test_short_names_category_and_columns(started: Namespace) -> None:
    tools, jobs = started.kubectl("get", "vt"), started.kubectl("get", "trj", "-o", "wide")
    assert tools.split("\n")[0].split() == ["NAME", "TOOL", "ACCEPTED", "AVAILABLE", "READY", "REPLICAS", "AGE"]
    assert jobs.split("\n")[0].split()[:7] == ["NAME", "ACCEPTED", "STAGE", "COMPLETE", "FAILED", "RESTARTS", "AGE"]
    everything = started.kubectl("get", "thinkimg", "-o", "name").split()
    assert {"visiontool.thinkimg.dev/ocr", "toolrljob.thinkimg.dev/running"} <= set(everything)


def test_explain_says_type_meaning_unit_default_and_choices(cluster: Cluster) -> None:
    said = cluster.kubectl("explain", "visiontool.spec.batching.maxSize")
    assert "FIELD: maxSize <integer>" in said
    assert "Most calls in a batch." in said
    said = cluster.kubectl("explain", "visiontool.spec.drainSeconds")
    assert "On termination, how long the server finishes what it has. Unit: seconds." in " ".join(said.split())
    said = cluster.kubectl("explain", "toolrljob.spec.stages")
    assert "The steps, run in this order. May be changed until status.startTime is set." in " ".join(said.split())
    said = cluster.kubectl("explain", "toolrljob.spec.storage.retentionPolicy")
    assert all(part in said for part in ("ENUM:\n    Retain\n    Delete", "What becomes of the claim that was made"))


@pytest.mark.parametrize("definition", definitions(), ids=lambda definition: definition["spec"]["names"]["kind"])
def test_every_field_is_described(definition: Object) -> None:
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]

    def undescribed(node: Object, path: str) -> Iterator[str]:
        for name, inner in node.get("properties", {}).items():
            if not inner.get("description") and name != "metadata":
                yield f"{path}.{name}"
            yield from undescribed(inner, f"{path}.{name}")
        if "items" in node:
            yield from undescribed(node["items"], f"{path}[]")

    assert list(undescribed(schema, "")) == []


@pytest.mark.parametrize("resource", [VisionTool, ToolRLJob])
def test_no_field_of_the_models_is_missing(resource: type[VisionTool] | type[ToolRLJob]) -> None:
    (definition,) = [d for d in definitions() if d["spec"]["names"]["kind"] == resource.__name__]
    for field in declared_fields(resource):
        node = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        for part in field.path.split("."):
            node = node["properties"][part.removesuffix("[]")]
            node = node["items"] if part.endswith("[]") else node


def test_a_refusal_of_kubectl_reads_well(namespace: Namespace) -> None:
    with pytest.raises(KubectlError) as refusal:
        namespace.apply(changed(JOB, setting("spec.stages.2.from", "stf")))
    assert "stages[].from names no earlier stage that trains a model. Name an earlier stage of type SFT or GRPO" in str(
        refusal.value
    )
