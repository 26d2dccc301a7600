"""What a ToolRLJob looks like as objects: every pod starts the stage that the manifest means."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from thinkimg_operator.strategic_merge import PatchError
from thinkimg_operator.toolrljob.render import (
    ToolEndpoint,
    calls_tools,
    claim_name,
    foreign_claims,
    plan,
    pods_of,
    render_attempt,
    render_claim,
    render_manifest,
    render_network_policy,
    render_service,
)

from tests.support.operator.toolrljob_world import make_job
from thinkimg.api.v1alpha1 import ToolRLJob, VisionTool, load_manifest
from thinkimg.api.v1alpha1.manifest import parse_manifest
from thinkimg.api.v1alpha1.pods import SecretRef

MANIFESTS = Path(__file__).parents[3] / "manifests"
OCR = ToolEndpoint("ocr", "dns+http://ocr-pods.ns.svc:8080", SecretRef(name="tool-key", key="key"))


def example(name: str = "toolrljob-qwen3.yaml") -> ToolRLJob:
    job = load_manifest(MANIFESTS / name).job()
    job.metadata.uid, job.metadata.namespace = "0123456789abcdef", "ns"
    return job


def attempt(job: ToolRLJob, stage: str, number: int = 1, endpoints: Any = ()) -> dict[str, Any]:
    return render_attempt(job, stage, number, endpoints, "runtime:1")


def container(body: dict[str, Any]) -> dict[str, Any]:
    return body["spec"]["template"]["spec"]["containers"][0]


def environment(body: dict[str, Any]) -> dict[str, Any]:
    variables = container(body)["env"]
    assert len({v["name"] for v in variables}) == len(variables), "a variable is there twice"
    return {v["name"]: v.get("value", v.get("valueFrom")) for v in variables}


def test_the_same_job_gives_the_same_bodies() -> None:
    assert attempt(example(), "v-toolrl", 2, [OCR]) == attempt(example(), "v-toolrl", 2, [OCR])
    assert render_manifest(example(), []) == render_manifest(example(), [])


def test_an_attempt_is_an_indexed_job_that_restarts_nothing_itself() -> None:
    body = attempt(example(), "v-toolrl", 3, [OCR])
    assert body["metadata"]["name"] == "chart-reader-v-toolrl-3-01234"
    spec = body["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 2, 2)
    assert (spec["backoffLimit"], spec["podReplacementPolicy"]) == (0, "Failed")
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    assert spec["template"]["spec"]["subdomain"] == render_service(example())["metadata"]["name"]


def test_the_command_is_the_one_of_every_other_place() -> None:
    body = container(attempt(example(), "sft"))
    assert body["command"] == ["thinkimg"]
    assert body["args"] == [
        "stage", "/etc/thinkimg/manifest.yaml", "sft", "--run", "/storage/runs/chart-reader-01234567",
        "--data-folder", "/storage",
    ]  # fmt: skip


def test_torchrun_finds_its_ranks_and_its_master() -> None:
    values = environment(attempt(example(), "sft", 2))
    assert values["PET_NNODES"] == "2"
    assert values["PET_NPROC_PER_NODE"] == "8"
    assert values["PET_MASTER_ADDR"] == "chart-reader-sft-2-01234-0.chart-reader-01234"
    assert render_service(example())["spec"]["selector"] == {
        "thinkimg.dev/job": "chart-reader",
        "batch.kubernetes.io/job-completion-index": "0",
    }
    path = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    assert values["PET_NODE_RANK"] == {"fieldRef": {"fieldPath": path}}
    assert values["THINKIMG_ATTEMPT"] == "2"


def test_one_process_needs_no_torchrun() -> None:
    assert not any(name.startswith("PET_") for name in environment(attempt(example(), "cold-start", 1, [OCR])))


def test_stages_that_call_tools_get_their_addresses_and_keys_by_reference() -> None:
    job = example()
    values = environment(attempt(job, "v-toolrl", 1, [OCR]))
    assert values["THINKIMG_TOOL_ENDPOINTS"] == OCR.url
    assert values["THINKIMG_TOOL_KEY_0"] == {"secretKeyRef": {"name": "tool-key", "key": "key"}}
    assert "THINKIMG_TOOL_ENDPOINTS" not in environment(attempt(job, "text-rl", 1, [OCR]))
    assert [stage for stage in plan(job) if calls_tools(job, stage)] == ["cold-start", "sft", "v-toolrl", "table"]


def test_secrets_are_named_and_never_read() -> None:
    values = environment(attempt(example(), "cold-start", 1, [OCR]))
    assert values["HF_TOKEN"] == {"secretKeyRef": {"name": "hub", "key": "token"}}
    assert values["THINKIMG_PLANNER_API_KEY"] == {"secretKeyRef": {"name": "planner", "key": "token"}}


def test_the_users_variables_win_over_our_defaults() -> None:
    job = make_job(env=[{"name": "HF_HOME", "value": "/elsewhere"}])
    assert environment(attempt(job, "s1"))["HF_HOME"] == "/elsewhere"


def test_pods_fit_the_restricted_pod_security_standard() -> None:
    spec = attempt(example(), "sft")["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    context = spec["containers"][0]["securityContext"]
    assert context == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert {"name": "shm", "emptyDir": {"medium": "Memory"}} in spec["volumes"]


def test_ranks_are_reached_by_ranks_of_their_job_only() -> None:
    job = example()
    policy = render_network_policy(job)["spec"]
    ours = {"podSelector": {"matchLabels": {"thinkimg.dev/job": job.name}}}
    assert policy["ingress"] == [{"from": [ours]}]
    labels = attempt(job, "sft")["spec"]["template"]["metadata"]["labels"]
    assert labels.items() >= policy["podSelector"]["matchLabels"].items()


def test_a_dead_node_is_waited_for_as_long_as_the_policy_says() -> None:
    spec = attempt(make_job(failurePolicy={"nodeLostSeconds": 33}), "s1")["spec"]["template"]["spec"]
    assert {toleration["tolerationSeconds"] for toleration in spec["tolerations"]} == {33}


@pytest.mark.parametrize("file", ["toolrljob.yaml", "toolrljob-qwen3.yaml"])
def test_the_gpu_recipes_have_one_process_for_each_gpu_and_what_nccl_needs(file: str) -> None:
    job = example(file)
    trained = [stage for stage in job.spec.stages if stage.type in ("SFT", "GRPO")]
    assert len(trained) >= 2
    for stage in trained:
        body = attempt(job, stage.name, endpoints=[OCR])
        limits = container(body)["resources"]["limits"]
        variables = environment(body)
        assert variables["PET_NPROC_PER_NODE"] == str(limits["nvidia.com/gpu"])
        assert variables["PET_NNODES"] == str(body["spec"]["completions"])
        assert variables["PET_MASTER_ADDR"] == f"{body['metadata']['name']}-0.{job.name}-01234"
        assert variables["NCCL_DEBUG"] == "WARN"
        assert {"name": "shm", "mountPath": "/dev/shm"} in container(body)["volumeMounts"]
        pod = body["spec"]["template"]["spec"]
        assert {"name": "shm", "emptyDir": {"medium": "Memory"}} in pod["volumes"]


@pytest.mark.parametrize("file", ["toolrljob.yaml", "toolrljob-qwen3.yaml", "toolrljob-cpu.yaml"])
def test_the_stages_read_the_same_experiment_that_was_applied(file: str) -> None:
    manifest = load_manifest(MANIFESTS / file)
    job = example(file)
    text = render_manifest(job, list(manifest.tools.values()))["data"]["manifest.yaml"]
    read = parse_manifest(text)
    again = read.job()
    for spec in (again.spec, job.spec):
        spec.failure_policy = type(spec.failure_policy)()  # may change while a stage runs; stages do not look at them
        spec.active_deadline_seconds = None
    assert again.spec == job.spec
    assert set(read.tools) == set(manifest.tools)
    assert render_manifest(again.model_copy(update={"metadata": job.metadata}), list(read.tools.values())) == (
        render_manifest(job, list(read.tools.values()))
    )


def test_stages_know_how_long_a_tool_may_take_where_that_is_not_the_default() -> None:
    def text(**fields: Any) -> str:
        spec = {"tool": "SAM", **fields}
        head = {"apiVersion": "thinkimg.dev/v1alpha1", "kind": "VisionTool", "metadata": {"name": "sam"}}
        return render_manifest(make_job(), [VisionTool.model_validate({**head, "spec": spec})])["data"]["manifest.yaml"]

    assert "callTimeoutSeconds: 90" in text(callTimeoutSeconds=90)
    assert text(callTimeoutSeconds=30) == text(replicas=3) == text()


def test_what_may_change_while_a_stage_runs_is_not_in_its_file() -> None:
    one = render_manifest(make_job(activeDeadlineSeconds=5, failurePolicy={"maxRestarts": 9}), [])
    assert one == render_manifest(make_job(), [])
    assert "failurePolicy" not in yaml.safe_load(one["data"]["manifest.yaml"])["spec"]


def test_a_claim_is_made_unless_one_is_named() -> None:
    job = make_job(storage={"size": "5Gi", "storageClassName": "fast"})
    claim = render_claim(job)
    assert claim is not None
    assert claim["spec"]["resources"]["requests"]["storage"] == "5Gi"
    assert claim["spec"]["storageClassName"] == "fast"
    named = make_job(storage={"claimName": "mine"}, model={"uri": "pvc://models/qwen"})
    assert render_claim(named) is None
    assert claim_name(named) == "mine"
    assert foreign_claims(named) == ["mine", "models"]
    mounts = container(attempt(named, "s1"))["volumeMounts"]
    assert {"name": "claim-0", "mountPath": "/claims/models", "readOnly": True} in mounts


def test_kueue_is_given_a_suspended_job() -> None:
    job = make_job()
    job.metadata.labels = {"kueue.x-k8s.io/queue-name": "team", "other": "x"}
    body = attempt(job, "s1")
    assert body["spec"]["suspend"] is True
    assert body["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"
    assert "other" not in body["metadata"]["labels"]
    assert "suspend" not in attempt(make_job(), "s1")["spec"]


def test_the_patch_comes_last() -> None:
    patch = {"spec": {"containers": [{"name": "stage", "image": "mine"}], "nodeSelector": {"gpu": "h200"}}}
    body = attempt(make_job(podTemplatePatch=patch), "s1")
    assert container(body)["image"] == "mine"
    assert container(body)["command"] == ["thinkimg"]
    assert body["spec"]["template"]["spec"]["nodeSelector"] == {"gpu": "h200"}
    with pytest.raises(PatchError, match="an element without name"):
        attempt(make_job(podTemplatePatch={"spec": {"containers": [{"image": "x"}]}}), "s1")


def test_stages_that_do_not_train_are_one_pod() -> None:
    job = example()
    assert {stage: pods_of(job, stage) for stage in plan(job)} == {
        "cold-start": 1, "sft": 2, "text-sft": 2, "text-rl": 2, "v-toolrl": 2, "table": 1,
    }  # fmt: skip


def test_every_name_fits_a_dns_label() -> None:
    job = make_job(stages=1)
    job.metadata.name = "a" * 30
    job.spec.stages[0].name = "b" * 16
    name = attempt(job, "b" * 16, 999)["metadata"]["name"]
    assert len(f"{name}-1023") <= 63
