"""VisionTools on a real API server: what is made of them, what is said about them, and what is healed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from thinkimg_operator.kinds import KINDS

from tests.support.cluster.shipped_access import ACCOUNT, grant
from tests.support.cluster.testcluster import Cluster, Namespace, Object, wait_for

CHILDREN = "deployment,service,poddisruptionbudget,horizontalpodautoscaler,networkpolicy"


@pytest.fixture(scope="module")
def place(cluster: Cluster) -> Iterator[Namespace]:
    """A namespace with the strictest pod security, and an operator at work under the rights that the chart ships."""
    with cluster.namespace("visiontool") as namespace:
        cluster.kubectl("label", "namespace", namespace.name, "pod-security.kubernetes.io/enforce=restricted")
        arguments = [*grant(namespace), "--resync-seconds=3", "--log-format=text"]
        with namespace.operator(ACCOUNT, arguments=arguments):
            yield namespace


def tool(name: str, **spec: Any) -> dict[str, Any]:
    metadata = {"name": name}
    return {
        "apiVersion": "thinkimg.dev/v1alpha1",
        "kind": "VisionTool",
        "metadata": metadata,
        "spec": {"tool": "OCR", **spec},
    }


def condition(place: Namespace, name: str, type_: str) -> tuple[str, str]:
    """Status and reason; empty while there is none."""
    found = (place.get("visiontool", name) or {}).get("status", {}).get("conditions", [])
    return next(((c["status"], c["reason"]) for c in found if c["type"] == type_), ("", ""))


def comes_to(place: Namespace, name: str, type_: str, status: str, reason: str, *, seconds: float = 300) -> None:
    what = f"{name} is {type_}={status} because of {reason}"
    wait_for(what, lambda: condition(place, name, type_) == (status, reason), seconds=seconds)


def names(place: Namespace, tool_name: str, kinds: str = CHILDREN) -> set[str]:
    found = place.kubectl("get", kinds, f"--selector=thinkimg.dev/tool={tool_name}", "-o", "name")
    return {line.replace(".apps", "").replace(".policy", "") for line in found.split()}


def test_a_tool_becomes_servers_with_addresses_and_its_status_says_so(place: Namespace) -> None:
    place.apply(tool("ocr", replicas=2))
    comes_to(place, "ocr", "Available", "True", "ServersReady")
    comes_to(place, "ocr", "Progressing", "False", "Settled")
    assert names(place, "ocr") == {
        "deployment/ocr",
        "service/ocr",
        "service/ocr-pods",
        "poddisruptionbudget/ocr",
        "networkpolicy.networking.k8s.io/ocr",
    }
    status = place.get("visiontool", "ocr")["status"]
    assert (status["replicas"], status["readyReplicas"], status["observedGeneration"]) == (2, 2, 1)
    assert status["url"] == f"http://ocr.{place.name}.svc:8000"
    assert place.get("service", "ocr-pods")["spec"]["clusterIP"] == "None"


def test_scaling_it_scales_its_servers_and_the_budget_follows(place: Namespace) -> None:
    place.apply(tool("scaled", replicas=1))
    comes_to(place, "scaled", "Progressing", "False", "Settled")
    assert "poddisruptionbudget/scaled" not in names(place, "scaled")
    place.kubectl("scale", "visiontool/scaled", "--replicas=3")
    wait_for("three are ready", lambda: place.get("visiontool", "scaled")["status"]["readyReplicas"] == 3)
    wait_for("a budget", lambda: "poddisruptionbudget/scaled" in names(place, "scaled"))
    place.kubectl("scale", "visiontool/scaled", "--replicas=0")
    comes_to(place, "scaled", "Available", "False", "ScaledToZero")
    wait_for("no budget", lambda: "poddisruptionbudget/scaled" not in names(place, "scaled"))


def test_deleted_and_edited_children_come_back(place: Namespace) -> None:
    place.apply(tool("healed"))
    comes_to(place, "healed", "Progressing", "False", "Settled")
    place.kubectl("patch", "deployment", "healed", "--type=merge", "-p", '{"spec": {"replicas": 4}}')
    wait_for("the edit is undone", lambda: place.get("deployment", "healed")["spec"]["replicas"] == 1)
    place.kubectl("delete", "deployment", "healed", "--wait=false")
    wait_for("a new Deployment", lambda: place.get("deployment", "healed"))
    # Nobody watches these: the resync finds them.
    place.kubectl("delete", "service", "healed")
    edit = '{"spec": {"selector": {"thinkimg.dev/tool": "another"}}}'
    place.kubectl("patch", "service", "healed-pods", "--type=merge", "-p", edit)
    wait_for("a new Service", lambda: place.get("service", "healed"))
    selector = {"thinkimg.dev/tool": "healed"}
    wait_for("its selector", lambda: place.get("service", "healed-pods")["spec"]["selector"] == selector)


def test_what_others_set_in_a_child_stays_and_is_not_fought_over(place: Namespace) -> None:
    place.apply(tool("shared"))
    comes_to(place, "shared", "Progressing", "False", "Settled")
    place.kubectl("annotate", "deployment", "shared", "example.com/team=vision")
    place.kubectl("rollout", "restart", "deployment/shared")
    comes_to(place, "shared", "Progressing", "False", "Settled")
    time.sleep(4)  # a resync goes by
    deployment = place.get("deployment", "shared")
    assert deployment["metadata"]["annotations"]["example.com/team"] == "vision"
    assert "kubectl.kubernetes.io/restartedAt" in deployment["spec"]["template"]["metadata"]["annotations"]
    version = deployment["metadata"]["resourceVersion"]
    time.sleep(4)  # and another: nothing is written any more
    assert place.get("deployment", "shared")["metadata"]["resourceVersion"] == version


THEIRS: dict[str, tuple[str, dict[str, Any]]] = {
    "Deployment": (
        "Deployment",
        {
            "selector": {"matchLabels": {"app": "theirs"}},
            "template": {
                "metadata": {"labels": {"app": "theirs"}},
                "spec": {"containers": [{"name": "theirs", "image": "registry.example.com/theirs:1"}]},
            },
        },
    ),
    "Service": ("Service", {"selector": {"app": "theirs"}, "ports": [{"port": 80}]}),
    "Service without a selector": ("Service", {"ports": [{"port": 5432}]}),
    "Service elsewhere": ("Service", {"type": "ExternalName", "externalName": "db.example.com"}),
    "PodDisruptionBudget": (
        "PodDisruptionBudget",
        {"selector": {"matchLabels": {"app": "theirs"}}, "maxUnavailable": 0},
    ),
    "HorizontalPodAutoscaler": (
        "HorizontalPodAutoscaler",
        {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "theirs"}, "maxReplicas": 9},
    ),
    "NetworkPolicy": ("NetworkPolicy", {"podSelector": {"matchLabels": {"app": "theirs"}}}),
}
"""Objects of a name that ours would have, also some of which no field would conflict with ours."""


def as_made(place: Namespace, kind: str, name: str) -> Any:
    """An object without what the cluster's own controllers say of it."""
    found = place.get(kind, name)
    assert found is not None
    found["metadata"].pop("resourceVersion")
    found["metadata"].get("annotations", {}).pop("deployment.kubernetes.io/revision", None)
    return found["metadata"], found["spec"]


@pytest.mark.parametrize("which", THEIRS)
def test_an_object_of_that_name_that_is_somebody_elses_is_left_alone(place: Namespace, which: str) -> None:
    kind, spec = THEIRS[which]
    name = f"taken-{which.lower().replace(' ', '-')}"[:30]
    place.apply({"apiVersion": KINDS[kind].api_version, "kind": kind, "metadata": {"name": name}, "spec": spec})
    before = as_made(place, kind, name)
    place.apply(tool(name, autoscaling={"minReplicas": 1, "maxReplicas": 2, "metric": "CPU"}))
    comes_to(place, name, "Accepted", "False", "NameTaken")
    assert as_made(place, kind, name) == before
    assert f"Delete that {kind}, or rename the tool." in place.kubectl("describe", "visiontool", name)
    place.kubectl("delete", "visiontool", name, "--cascade=foreground", "--wait")
    assert as_made(place, kind, name) == before


def test_a_name_that_becomes_free_is_taken(place: Namespace) -> None:
    place.apply(
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "freed"}, "spec": {"ports": [{"port": 1}]}}
    )
    place.apply(tool("freed"))
    comes_to(place, "freed", "Accepted", "False", "NameTaken")
    place.kubectl("delete", "service", "freed")  # as the message says
    comes_to(place, "freed", "Accepted", "True", "Valid")


def test_children_that_lost_their_owner_are_ours_but_a_cluster_may_want_them_deleted_first(place: Namespace) -> None:
    """The test clusters ask for the right to delete what gets an owner (OwnerReferencesPermissionEnforcement)."""
    place.apply(tool("orphans"))
    comes_to(place, "orphans", "Progressing", "False", "Settled")
    place.kubectl("delete", "visiontool", "orphans", "--cascade=orphan", "--wait")
    wait_for("orphans", lambda: not place.get("deployment", "orphans")["metadata"].get("ownerReferences"))
    place.apply(tool("orphans"))
    comes_to(place, "orphans", "Accepted", "False", "Refused")
    described = place.kubectl("describe", "visiontool", "orphans")
    assert "refuses the tool's Deployment orphans" in described
    assert "cannot set an ownerRef" in described


def test_a_patch_that_cannot_be_is_refused_with_its_place(place: Namespace) -> None:
    place.apply(tool("patched", podTemplatePatch={"spec": {"containers": "none"}}))
    comes_to(place, "patched", "Accepted", "False", "Invalid")
    place.apply(tool("refused", podTemplatePatch={"spec": {"restartPolicy": "Never"}}))
    comes_to(place, "refused", "Accepted", "False", "Refused")
    place.apply(tool("misspelt", podTemplatePatch={"spec": {"nodeselector": {"gpu": "a100"}}}))
    comes_to(place, "misspelt", "Accepted", "False", "Refused")
    assert ".spec.template.spec.nodeselector: field not declared" in place.kubectl("describe", "visiontool", "misspelt")
    place.apply(tool("emptied", podTemplatePatch={"spec": {"$patch": "replace"}}))
    comes_to(place, "emptied", "Accepted", "False", "Refused")
    described = place.kubectl("describe", "visiontool", "refused")
    assert 'spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"' in described


def test_gpus_that_no_node_has_show(place: Namespace) -> None:
    place.apply(tool("hungry", resources={"limits": {"nvidia.com/gpu": "64"}}))
    comes_to(place, "hungry", "Progressing", "True", "Unschedulable")
    described = place.kubectl("describe", "visiontool", "hungry")
    assert "Insufficient nvidia.com/gpu" in described
    assert "Free or add nodes, or lower spec.resources." in described


def test_a_service_account_that_does_not_exist_shows(place: Namespace) -> None:
    place.apply(tool("accountless", serviceAccountName="nobody"))
    comes_to(place, "accountless", "Progressing", "True", "PodsRefused")


def test_an_autoscaler_targets_the_tool_itself_and_goes_with_the_setting(place: Namespace) -> None:
    place.apply(tool("elastic", autoscaling={"minReplicas": 2, "maxReplicas": 4, "metric": "CPU", "target": 60}))
    wait_for("an autoscaler", lambda: place.get("hpa", "elastic"))
    assert place.get("hpa", "elastic")["spec"]["scaleTargetRef"]["kind"] == "VisionTool"
    wait_for("its lower bound holds", lambda: place.get("deployment", "elastic")["spec"]["replicas"] == 2)
    place.kubectl(
        "patch", "visiontool", "elastic", "--type=json", "-p", '[{"op": "remove", "path": "/spec/autoscaling"}]'
    )
    wait_for("no autoscaler", lambda: place.get("hpa", "elastic") is None)
    assert place.get("deployment", "elastic")["spec"]["replicas"] == 2


def test_switching_the_autoscaler_on_and_off_takes_no_server_away(place: Namespace) -> None:
    place.apply(tool("steady", replicas=3))
    comes_to(place, "steady", "Progressing", "False", "Settled")
    counts = "{.spec.replicas} {.status.readyReplicas}"
    with place.watching("deployment", "steady", counts) as seen:
        scaling = {"minReplicas": 2, "maxReplicas": 5, "metric": "CPU", "target": 60}
        place.apply(tool("steady", replicas=3, autoscaling=scaling))
        wait_for("an autoscaler", lambda: place.get("hpa", "steady"))
        place.kubectl("scale", "visiontool/steady", "--replicas=5")  # as the autoscaler does under load
        wait_for("five are ready", lambda: place.get("visiontool", "steady")["status"]["readyReplicas"] == 5)
        removal = '[{"op": "remove", "path": "/spec/autoscaling"}]'
        place.kubectl("patch", "visiontool", "steady", "--type=json", "-p", removal)
        wait_for("no autoscaler", lambda: place.get("hpa", "steady") is None)
        time.sleep(4)  # a resync goes by
    assert all(int(wanted) >= 3 and int(ready) >= 3 for wanted, ready in map(str.split, seen))
    assert seen[-1] == "5 5"


def test_a_deleted_tool_takes_its_children_along(place: Namespace) -> None:
    place.apply(tool("gone"))
    comes_to(place, "gone", "Progressing", "False", "Settled")
    place.kubectl("delete", "visiontool", "gone")
    wait_for("nothing is left", lambda: not names(place, "gone"))


def test_events_tell_what_happened_once(place: Namespace) -> None:
    place.apply(tool("told"))
    comes_to(place, "told", "Available", "True", "ServersReady")
    assert [event["reason"] for event in events_of(place, "told")] == ["ServersReady"]


def events_of(place: Namespace, name: str) -> list[Object]:
    about = {"kind": "VisionTool", "name": name}
    return [event for event in place.list("events.events.k8s.io") if about.items() <= event["regarding"].items()]


# --- what goes wrong with pods, as a kubelet would tell it


def pending_pod(place: Namespace, name: str) -> str:
    """Apply a tool whose pod stays Pending; the pod's name."""
    hold = {"metadata": {"annotations": {"sim.thinkimg.dev/ready-after": "1h"}}}
    place.apply(tool(name, podTemplatePatch=hold))

    def pod() -> str | None:
        found = place.list("pods", f"thinkimg.dev/tool={name}")
        return found[0]["metadata"]["name"] if found and found[0]["spec"].get("nodeName") else None

    return wait_for("its pod is scheduled", pod)


REFUSED = '{"event": "failed", "family": "user", "field": "options.lang", "message": "unknown", "pid": 1}\n'
"""What a server says at its end; other lines of its log are not repeated."""
WAITING: list[tuple[str, Object, str]] = [
    (
        "ImagePullFailed",
        {"state": {"waiting": {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "x:1"'}}},
        'Back-off pulling image "x:1". Correct spec.image or spec.imagePullSecrets.',
    ),
    (
        "ConfigurationMissing",
        {"state": {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "key" not found'}}},
        'secret "key" not found. Create it, or correct the reference.',
    ),
    (
        "Crashing",
        {
            "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}},
            "lastState": {"terminated": {"exitCode": 2, "reason": "Error", "message": REFUSED}},
        },
        "it ended with code 2: options.lang: unknown. See the log of the pod.",
    ),
]


@pytest.mark.parametrize(("reason", "state", "message"), WAITING, ids=[case[0] for case in WAITING])
def test_why_a_server_does_not_start_shows(place: Namespace, reason: str, state: Object, message: str) -> None:
    name = f"waits-{reason.lower()}"
    pod = pending_pod(place, name)
    container = {"name": "tool", "image": "x:1", "imageID": "", "ready": False, "restartCount": 0, **state}
    place.patch_status("pod", pod, {"containerStatuses": [container]})
    comes_to(place, name, "Progressing", "True", reason)
    assert message in place.kubectl("describe", "visiontool", name)


def test_a_claim_that_does_not_exist_shows(place: Namespace) -> None:
    place.apply(tool("claimless", weights={"uri": "pvc://models/ocr"}))
    comes_to(place, "claimless", "Progressing", "True", "ConfigurationMissing")
    assert "There is no claim models. Create it, or correct spec.weights." in place.kubectl("describe", "vt/claimless")


@pytest.mark.usefixtures("own_cluster_only")
def test_a_tool_on_the_only_device_of_the_only_node_gets_a_new_image(place: Namespace) -> None:
    """With a server more than the devices there are, the new one would wait for ever."""
    device = json.dumps({"status": {field: {"example.com/npu": "1"} for field in ("capacity", "allocatable")}})
    place.kubectl("patch", "node", "node-0", "--subresource=status", "--type=merge", "-p", device)
    only = {"resources": {"limits": {"example.com/npu": 1}}}
    place.apply(tool("device", **only))
    comes_to(place, "device", "Available", "True", "ServersReady")
    place.apply(tool("device", image="registry.example.com/tool:2", **only))
    comes_to(place, "device", "Progressing", "False", "Settled")
    (pod,) = place.list("pods", "thinkimg.dev/tool=device")
    assert pod["spec"]["containers"][0]["image"] == "registry.example.com/tool:2"
    assert condition(place, "device", "Available") == ("True", "ServersReady")
    place.apply(tool("device", image="registry.example.com/tool:3", updateStrategy="Surge", **only))
    message = "Insufficient example.com/npu"
    wait_for("the one that is too many waits", lambda: message in place.kubectl("describe", "vt/device"))


def test_a_rollout_without_progress_is_said_to_be_stuck(place: Namespace) -> None:
    pending_pod(place, "stuck")
    late = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "timed out."}
    place.kubectl(
        "patch", "deployment", "stuck", "--subresource=status", "--type=strategic", "-p",
        json.dumps({"status": {"conditions": [late]}}),
    )  # fmt: skip
    comes_to(place, "stuck", "Progressing", "False", "DeadlineExceeded")


def test_the_loss_of_the_last_ready_server_is_told(place: Namespace) -> None:
    place.apply(tool("lost"))
    comes_to(place, "lost", "Available", "True", "ServersReady")
    (pod,) = place.list("pods", "thinkimg.dev/tool=lost")
    unready = [{**c, "status": "False"} if c["type"] == "Ready" else c for c in pod["status"]["conditions"]]
    place.patch_status("pod", pod["metadata"]["name"], {"conditions": unready})
    comes_to(place, "lost", "Available", "False", "NoServerReady")
    assert "NoServerReady" in {event["reason"] for event in events_of(place, "lost")}


def test_a_spec_that_is_refused_later_leaves_the_running_servers_alone(place: Namespace) -> None:
    place.apply(tool("kept"))
    comes_to(place, "kept", "Progressing", "False", "Settled")
    place.apply(tool("kept", podTemplatePatch={"spec": {"containers": "none"}}))
    comes_to(place, "kept", "Accepted", "False", "Invalid")
    assert condition(place, "kept", "Available") == ("True", "ServersReady")
    assert place.get("deployment", "kept")["status"]["readyReplicas"] == 1
    place.apply(tool("kept", replicas=2))
    comes_to(place, "kept", "Progressing", "False", "Settled")
