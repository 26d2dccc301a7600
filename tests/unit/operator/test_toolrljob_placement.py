"""Where pods run: the job's word, a stage's own, the patches one after the other, and the network of nodes."""

from typing import Any

import pytest
from thinkimg_operator.strategic_merge import PatchError
from thinkimg_operator.toolrljob.placement import rendezvous_port
from thinkimg_operator.toolrljob.render import render_attempt, render_manifest

from tests.support.operator.toolrljob_world import make_job
from thinkimg.api.v1alpha1 import ToolRLJob
from thinkimg.api.v1alpha1.pods import Pods, StagePods

OF_THE_JOB: dict[str, Any] = {
    "nodeSelector": {"pool": "all"},
    "tolerations": [{"key": "job", "operator": "Exists"}],
    "affinity": {"podAntiAffinity": {}},
    "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}],
    "priorityClassName": "low",
    "schedulerName": "jobs",
    "runtimeClassName": "runc",
    "imagePullPolicy": "Always",
    "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "all"}],
    "hostNetwork": True,
    "terminationGracePeriodSeconds": 600,
}
OF_THE_STAGE: dict[str, Any] = {
    "nodeSelector": {"pool": "gpu"},
    "tolerations": [{"key": "stage", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "topologySpreadConstraints": [],
    "priorityClassName": "high",
    "schedulerName": "stages",
    "runtimeClassName": "nvidia",
    "imagePullPolicy": "Never",
    "resourceClaims": [],
    "hostNetwork": False,
    "terminationGracePeriodSeconds": 0,
}


def placed(stage: str = "s1", attempt: int = 1, **spec: Any) -> dict[str, Any]:
    """The pod template of an attempt. `s2`: what stage s2 says of its pods."""
    return template(with_stage(spec), stage, attempt)


def with_stage(spec: dict[str, Any]) -> ToolRLJob:
    own = spec.pop("s2", {})
    job = make_job(**spec)
    job.spec.stages[1].pods = StagePods.model_validate(own)
    return job


def template(job: ToolRLJob, stage: str = "s1", attempt: int = 1) -> dict[str, Any]:
    found: dict[str, Any] = render_attempt(job, stage, attempt, [], "runtime:1")["spec"]["template"]
    return found


def said(found: dict[str, Any], field: str) -> Any:
    spec = found["spec"]
    if field == "imagePullPolicy":
        return spec["containers"][0].get(field)
    if field == "tolerations":
        return [toleration for toleration in spec[field] if not toleration["key"].startswith("node.kubernetes.io/")]
    return spec.get(field)


def test_every_field_is_tried_here() -> None:
    fields = {info.alias for info in Pods.model_fields.values()}
    assert fields == OF_THE_JOB.keys() == OF_THE_STAGE.keys()


@pytest.mark.parametrize("field", OF_THE_JOB)
def test_a_stage_has_the_jobs_word_unless_it_has_its_own(field: str) -> None:
    job = {field: OF_THE_JOB[field]}
    assert said(placed("s2", pods=job), field) == OF_THE_JOB[field]
    assert said(placed("s2", pods=job, s2={field: OF_THE_STAGE[field]}), field) == OF_THE_STAGE[field]
    assert said(placed("s1", pods=job, s2={field: OF_THE_STAGE[field]}), field) == OF_THE_JOB[field]


def test_base_has_the_jobs_word() -> None:
    job = make_job(model={"uri": "preset://tiny"}, pods=OF_THE_JOB)
    found = template(job, "base")
    assert all(said(found, field) == value for field, value in OF_THE_JOB.items())


def test_a_lost_node_is_tolerated_no_longer_whatever_else_is() -> None:
    keys = [toleration["key"] for toleration in placed(pods=OF_THE_JOB)["spec"]["tolerations"]]
    assert keys == ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable", "job"]


def test_pods_have_a_minute_to_save_unless_told_otherwise() -> None:
    assert placed()["spec"]["terminationGracePeriodSeconds"] == 60


def test_a_stage_has_an_image_of_its_own() -> None:
    spec: dict[str, Any] = {"image": "job:1", "s2": {"image": "stage:2"}}
    images = [placed(stage, **spec)["spec"]["containers"][0]["image"] for stage in ("s1", "s2")]
    assert images == ["job:1", "stage:2"]


def test_the_stages_patch_comes_after_the_jobs() -> None:
    def patch(**labels: str | None) -> dict[str, Any]:
        return {"podTemplatePatch": {"spec": {"nodeSelector": labels}}}

    spec = {
        **patch(a="job", b="job"),
        "s2": patch(b="stage", c=None, pool=None),
        "pods": {"nodeSelector": {"pool": "x"}},
    }
    assert placed("s1", **spec)["spec"]["nodeSelector"] == {"a": "job", "b": "job", "pool": "x"}
    spec["s2"] = patch(b="stage", a=None)
    assert placed("s2", **spec)["spec"]["nodeSelector"] == {"b": "stage", "pool": "x"}
    with pytest.raises(PatchError, match="an element without name"):
        placed("s2", s2={"podTemplatePatch": {"spec": {"containers": [{"image": "x"}]}}})


def test_claims_of_the_container_are_named() -> None:
    job = make_job(pods={"resourceClaims": OF_THE_JOB["resourceClaims"]})
    stage = job.spec.stages[0].model_dump(by_alias=True, exclude_none=True)
    stage["resources"] = {"limits": {"cpu": "1"}, "claims": [{"name": "gpu", "request": "one"}, {"name": "nic"}]}
    job.spec.stages[0] = type(job.spec.stages[0]).model_validate(stage)
    resources = template(job)["spec"]["containers"][0]["resources"]
    assert resources == {"limits": {"cpu": "1"}, "claims": [{"name": "gpu", "request": "one"}, {"name": "nic"}]}


def test_the_jobs_labels_are_its_pods_but_for_those_that_say_whose_they_are() -> None:
    job = make_job()
    kept = {"team": "vision", "example.com/cost-centre": "7"}
    job.metadata.labels = kept | {
        "app.kubernetes.io/instance": "argo", "kubernetes.io/x": "1", "thinkimg.dev/job": "other",
        "batch.kubernetes.io/job-name": "other", "argocd.argoproj.io/instance": "argo",
        "kueue.x-k8s.io/queue-name": "team",
    }  # fmt: skip
    body = render_attempt(job, "s1", 1, [], "runtime:1")
    ours = render_attempt(make_job(), "s1", 1, [], "runtime:1")
    assert body["spec"]["template"]["metadata"]["labels"] == ours["metadata"]["labels"] | kept
    queue = {"kueue.x-k8s.io/queue-name": "team"}
    assert body["metadata"]["labels"] == ours["metadata"]["labels"] | kept | queue


@pytest.mark.parametrize(
    "how", [{"pods": {"hostNetwork": True}}, {"podTemplatePatch": {"spec": {"hostNetwork": True}}}]
)
def test_on_the_nodes_network_ranks_meet_at_a_declared_port_of_the_attempt(how: dict[str, Any]) -> None:
    job = make_job(**how)
    seen = []
    for attempt in (1, 2):
        spec = template(job, attempt=attempt)["spec"]
        (container,) = spec["containers"]
        (port,) = [v["value"] for v in container["env"] if v["name"] == "PET_MASTER_PORT"]
        assert port == str(rendezvous_port(job, attempt))
        declared = {"name": "rendezvous", "containerPort": int(port), "hostPort": int(port), "protocol": "TCP"}
        assert container["ports"] == [declared]
        assert spec["dnsPolicy"] == "ClusterFirstWithHostNet"
        seen.append(int(port))
    assert len(set(seen)) == 2
    assert all(20_000 <= port < 30_000 for port in seen)


def test_one_process_on_the_nodes_network_needs_no_port() -> None:
    spec = template(make_job(nodes=1, pods={"hostNetwork": True}))["spec"]
    assert spec["dnsPolicy"] == "ClusterFirstWithHostNet"
    assert "ports" not in spec["containers"][0]


def test_what_the_user_says_of_names_on_the_nodes_network_stays() -> None:
    spec = placed(podTemplatePatch={"spec": {"hostNetwork": True, "dnsPolicy": "Default"}})["spec"]
    assert spec["dnsPolicy"] == "Default"


def test_placement_changes_nothing_that_the_stages_read() -> None:
    said_much = with_stage({"pods": OF_THE_JOB, "s2": OF_THE_STAGE})
    assert render_manifest(said_much, []) == render_manifest(make_job(), [])
