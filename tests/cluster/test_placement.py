"""Where the pods of stages run, with a real API server and scheduler: each stage its own node, by its own rules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.cluster.joblab import Lab, job, job_namespace, sft, table
from tests.support.cluster.testcluster import Cluster, KubectlError, wait_for

POOL = "placement.example.com/pool"
GPU = {"nodeSelector": {POOL: "gpu"}}
CPU = {"nodeSelector": {POOL: "cpu"}}


@pytest.fixture(scope="module")
def lab(cluster: Cluster) -> Iterator[Lab]:
    with job_namespace(cluster, "placement", ["--resync-seconds=5"]) as lab:
        lab.namespace.kubectl("label", "node", "node-0", f"{POOL}=cpu", "--overwrite")
        lab.namespace.kubectl("label", "node", "node-1", f"{POOL}=gpu", "--overwrite")
        yield lab
        lab.namespace.kubectl("label", "node", "node-0", "node-1", f"{POOL}-")


def node(pod: dict[str, Any]) -> str:
    return str(pod["spec"]["nodeName"])


def test_a_stage_on_gpus_and_one_without_run_on_different_nodes(lab: Lab) -> None:
    training = sft(nodes=1, pods={**GPU, "image": "trainer:gpu"}, resources={"limits": {"nvidia.com/gpu": "8"}})
    body = job("apart", training, table(), pods={**CPU, "terminationGracePeriodSeconds": 900})
    body["metadata"]["labels"] = {"team": "vision"}
    lab.submit(body)
    (pod,) = lab.runs("apart")
    assert (node(pod), pod["spec"]["containers"][0]["image"]) == ("node-1", "trainer:gpu")
    assert pod["metadata"]["labels"]["team"] == "vision"
    lab.succeed("apart")
    (pod,) = lab.runs("apart", "table")
    assert (node(pod), pod["spec"]["terminationGracePeriodSeconds"]) == ("node-0", 900)
    assert pod["spec"]["containers"][0]["image"] != "trainer:gpu"
    lab.succeed("apart", "table")
    lab.comes_to("apart", "Complete", "True", "AllStagesSucceeded")


def test_where_pods_run_changes_while_a_job_is_suspended_and_not_while_it_runs(lab: Lab) -> None:
    lab.submit(job("moved", pods=CPU))
    assert {node(pod) for pod in lab.runs("moved")} == {"node-0"}
    with pytest.raises(KubectlError, match=r"spec\.pods.*changes only while the job is suspended"):
        lab.namespace.apply(job("moved", pods=GPU))
    lab.change("moved", suspend=True)
    wait_for("no pod is left", lambda: not lab.pods("moved"))
    lab.change("moved", pods={**GPU, "terminationGracePeriodSeconds": 300})
    lab.change("moved", suspend=False)
    second = lab.runs("moved", attempt=2)
    assert {node(pod) for pod in second} == {"node-1"}
    assert {pod["spec"]["terminationGracePeriodSeconds"] for pod in second} == {300}
    lab.namespace.kubectl("delete", "toolrljob", "moved")


def test_two_jobs_on_the_network_of_one_node_meet_at_ports_of_their_own(lab: Lab) -> None:
    two_processes = sft(nodes=1, procsPerNode=2)
    ports = []
    for name in ("loud", "louder"):
        lab.submit(job(name, two_processes, pods={**CPU, "hostNetwork": True}))
    for name in ("loud", "louder"):
        (pod,) = lab.runs(name)
        assert node(pod) == "node-0"
        assert pod["spec"]["dnsPolicy"] == "ClusterFirstWithHostNet"
        (container,) = pod["spec"]["containers"]
        (declared,) = container["ports"]
        assert declared["hostPort"] == declared["containerPort"]
        (meets,) = [v["value"] for v in container["env"] if v["name"] == "PET_MASTER_PORT"]
        assert meets == str(declared["hostPort"])
        ports.append(declared["hostPort"])
        lab.succeed(name)
    assert ports[0] != ports[1]


def test_claims_of_devices_reach_the_pod_and_its_container(lab: Lab) -> None:
    template = {"resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}]}
    lab.submit(job("devices", sft(nodes=1, pods=template, resources={"claims": [{"name": "gpu"}]})))
    (pod,) = wait_for("its pod is there", lambda: lab.pods("devices"))
    assert pod["spec"]["resourceClaims"] == template["resourceClaims"]
    assert pod["spec"]["containers"][0]["resources"]["claims"] == [{"name": "gpu"}]
    lab.namespace.kubectl("delete", "toolrljob", "devices")


@pytest.mark.parametrize(
    ("name", "later", "says"),
    [
        ("unclaimed", {"resources": {"claims": [{"name": "gpu"}]}}, "resources.claims[0]"),
        (
            "misspelt",
            {"pods": {"tolerations": [{"keyy": "gpu"}]}},
            'unknown field "spec.template.spec.tolerations[2].keyy"',
        ),
        ("unmerged", {"pods": {"podTemplatePatch": {"spec": {"containers": 1}}}}, "podTemplatePatch.spec.containers"),
    ],
)
def test_a_later_stage_that_cannot_be_placed_is_refused_before_the_first_starts(
    lab: Lab, name: str, later: dict[str, Any], says: str
) -> None:
    lab.submit(job(name, sft(), sft("later", **later)))
    assert says in lab.comes_to(name, "Accepted", "False", "Refused")
    assert lab.jobs(name) == []
    assert "startTime" not in lab.get(name)["status"]


def test_what_is_said_of_pods_in_the_wrong_place_is_refused_by_name(lab: Lab) -> None:
    with pytest.raises(KubectlError, match=r'unknown field "spec\.stages\[0\]\.nodeSelector"'):
        lab.namespace.apply(job("misplaced", sft(nodeSelector={POOL: "gpu"})))
    assert lab.get("misplaced") is None
