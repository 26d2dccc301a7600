"""CRDs, and what they hold, of a version newer than the operator: nothing stops, and what it does not know stays."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.cluster.joblab import JOBS, MERGE, Lab, job, job_namespace
from tests.support.cluster.testcluster import Cluster, wait_for
from thinkimg.cluster.status import status_of

CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{}.thinkimg.dev"
TELEMETRY = {"type": "string", "enum": ["Off", "Basic"], "default": "Basic"}
SECONDS = {"type": "integer"}


def newer(plural: str, schema: dict[str, Any]) -> None:
    """What a next version may add: fields of spec and status, with defaults, also in blocks and lists."""
    spec, status = (schema["properties"][part]["properties"] for part in ("spec", "status"))
    spec["telemetry"] = TELEMETRY
    block = spec["batching" if plural == "visiontools" else "failurePolicy"]
    block["properties"]["order"] = {"type": "integer", "default": 1}
    status["gpuSeconds"] = SECONDS
    if plural == "toolrljobs":
        status["stages"]["items"]["properties"]["gpuSeconds"] = SECONDS


@pytest.fixture
def newer_crds(cluster: Cluster) -> Iterator[Any]:
    """A function that brings newer CRDs; those of this version come back afterwards."""
    before = {plural: cluster.request("GET", CRD.format(plural))[1] for plural in ("visiontools", "toolrljobs")}

    def put(plural: str, spec: Any) -> None:
        body = cluster.request("GET", CRD.format(plural))[1]
        status, answer = cluster.request("PUT", CRD.format(plural), {**body, "spec": spec})
        assert status == 200, answer

    def bring() -> None:
        for plural, body in before.items():
            spec = body["spec"]
            (version,) = spec["versions"]
            schema = json_copy(version["schema"])
            newer(plural, schema["openAPIV3Schema"])
            put(plural, {**spec, "versions": [{**version, "schema": schema}]})

    yield bring
    for plural, body in before.items():
        put(plural, body["spec"])


def json_copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: json_copy(inner) for key, inner in value.items()}
    return [json_copy(inner) for inner in value] if isinstance(value, list) else value


def test_crds_may_be_newer_than_the_operator(cluster: Cluster, newer_crds: Any) -> None:
    with job_namespace(cluster, "skew", ["--resync-seconds=2"]) as lab:
        tool = {"apiVersion": "thinkimg.dev/v1alpha1", "kind": "VisionTool", "metadata": {"name": "reader"}}
        lab.namespace.apply({**tool, "spec": {"tool": "OCR", "replicas": 1}})
        lab.submit(job("old", tools=[{"name": "reader"}]))
        lab.runs("old")
        newer_crds()
        wait_for("the default", lambda: (lab.get("old") or {}).get("spec", {}).get("telemetry") == "Basic")
        stages = [{**one, "gpuSeconds": 3} for one in lab.get("old")["status"]["stages"]]
        lab.patch(f"{JOBS.format(lab.name)}/old/status", {"status": {"gpuSeconds": 5, "stages": stages}})
        lab.submit(job("new", tools=[{"name": "reader"}], telemetry="Off"))
        first = lab.runs("old")[0]
        lab.runs("new")
        three_resyncs(lab)
        quiet = lab.get("old")["metadata"]["resourceVersion"]
        three_resyncs(lab)
        assert lab.get("old")["metadata"]["resourceVersion"] == quiet, "it writes what is there already"

        lab.end(first, exit_code=1)
        lab.runs("old", attempt=2)
        status = lab.get("old")["status"]
        assert (status["gpuSeconds"], status["stages"][0]["gpuSeconds"]) == (5, 3)
        assert status_of(lab.get("old")).restarts == 1
        for name in ("old", "new"):
            assert lab.condition(name, "Accepted")[:2] == ("True", "Valid")
        lab.namespace.kubectl("scale", "visiontool/reader", "--replicas=2")
        wait_for("two servers", lambda: lab.namespace.get("visiontool", "reader")["status"].get("readyReplicas") == 2)
        assert lab.namespace.get("visiontool", "reader")["spec"]["batching"]["order"] == 1

        assert lab.operator is not None
        said = re.findall(r"has (\S+), which this version does not know", lab.operator.log.read_text())
        of_both = ["spec.telemetry"] * 2
        of_one = ["spec.batching.order", "spec.failurePolicy.order", "status.gpuSeconds", "status.stages[].gpuSeconds"]
        assert sorted(said) == sorted([*of_both, *of_one])
        assert alive(lab)


def test_a_status_that_cannot_be_read_makes_nothing_else_sick(cluster: Cluster, newer_crds: Any) -> None:
    with job_namespace(cluster, "unreadable", ["--resync-seconds=2"]) as lab:
        lab.submit(job("strange"))
        lab.runs("strange")
        body = cluster.request("GET", CRD.format("toolrljobs"))[1]
        states = body["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"][
            "stages"
        ]
        states["items"]["properties"]["state"]["enum"].append("Migrating")
        status, answer = cluster.request("PUT", CRD.format("toolrljobs"), body)
        assert status == 200, answer
        stage = {**lab.get("strange")["status"]["stages"][0], "state": "Migrating"}
        path = f"{JOBS.format(lab.name)}/strange/status"
        patch = {"status": {"stages": [stage]}}
        wait_for("the new state", lambda: cluster.request("PATCH", path, patch, content_type=MERGE)[0] == 200)
        three_resyncs(lab)
        assert lab.get("strange")["status"]["stages"] == [stage]
        lab.submit(job("other"))
        lab.runs("other")
        assert alive(lab)
        assert lab.operator is not None
        assert len(re.findall(r"strange is left alone", lab.operator.log.read_text())) == 1


def three_resyncs(lab: Lab) -> None:
    assert lab.operator is not None
    since = lab.operator.metric("thinkimg_resyncs_total")
    wait_for("three resyncs", lambda: lab.operator.metric("thinkimg_resyncs_total") >= since + 3)


def alive(lab: Lab) -> bool:
    assert lab.operator is not None
    address = re.search(r"probes and metrics at ([\d.]+:\d+)", lab.operator.log.read_text())
    assert address is not None
    with urllib.request.urlopen(f"http://{address[1]}/livez", timeout=120) as page:
        return bool(page.status == 200)
