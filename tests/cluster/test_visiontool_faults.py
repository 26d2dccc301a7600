"""A VisionTool comes out the same whatever happens to the operator and its connection on the way."""

from __future__ import annotations

import json
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from tests.support.cluster.faultproxy import FAULT_SECONDS, FAULT_SEED, Fault, FaultProxy, Request
from tests.support.cluster.shipped_access import ACCOUNT, grant
from tests.support.cluster.testcluster import Cluster, Namespace, Object, Operator, wait_for

CHILDREN = "deployment,service,poddisruptionbudget,horizontalpodautoscaler,networkpolicy"
BEFORE: Object = {"tool": "OCR", "replicas": 2, "autoscaling": {"minReplicas": 2, "maxReplicas": 3, "metric": "CPU"}}
AFTER: Object = {"tool": "OCR", "replicas": 2, "callTimeoutSeconds": 7}


def tool(name: str, spec: Object) -> Object:
    metadata = {"name": name}
    return {"apiVersion": "thinkimg.dev/v1alpha1", "kind": "VisionTool", "metadata": metadata, "spec": spec}


def settled(namespace: Namespace, name: str) -> bool:
    """The status speaks of the current spec, and says that all is done."""
    found = namespace.get("visiontool", name) or {}
    conditions = {c["type"]: c["reason"] for c in found.get("status", {}).get("conditions", [])}
    current = found.get("status", {}).get("observedGeneration") == found["metadata"]["generation"]
    return current and conditions.get("Progressing") == "Settled"


def script(namespace: Namespace) -> None:
    """The life of one tool: it is made, scaled by load, then changed to be of fixed size and rolled out anew."""
    namespace.apply(tool("ocr", BEFORE))
    wait_for("the tool has settled", lambda: settled(namespace, "ocr"), seconds=240)
    changed = namespace.get("visiontool", "ocr")
    assert changed is not None
    namespace.kubectl("replace", "-f", "-", stdin=json.dumps({**changed, "spec": AFTER}))
    wait_for("it has settled again", lambda: settled(namespace, "ocr"), seconds=240)


def end_state(namespace: Namespace) -> Object:
    """What is there: children with their specs, the status without its times, and how often each event was told."""
    children = {f"{item['kind']}/{item['metadata']['name']}": _spec(item) for item in namespace.list(CHILDREN)}
    tools = {item["metadata"]["name"]: _status(item) for item in namespace.list("visiontools")}
    told = Counter(
        (event["regarding"]["name"], event["reason"])
        for event in namespace.list("events.events.k8s.io")
        if event["regarding"].get("kind") == "VisionTool"
    )
    return {"children": children, "tools": tools, "told": dict(told)}


MOST_WRITES = 30
"""Of the script: 13 or so, and more where the machine is slow, as statuses that follow one another are then written one
by one. What a run does not reach is skipped."""


def written(proxy: FaultProxy, namespace: Namespace) -> set[str]:
    """Every object that was written, and how; events are told in `end_state`."""
    return {one.replace(namespace.name, "NAMESPACE") for one in proxy.written if "/events" not in one}


def _spec(item: Object) -> Object:
    given_by_the_server = ("clusterIP", "clusterIPs")
    owners = [(owner["kind"], owner["name"]) for owner in item["metadata"].get("ownerReferences", [])]
    spec = {name: value for name, value in item["spec"].items() if name not in given_by_the_server}
    return {"owners": owners, "labels": item["metadata"].get("labels"), "spec": spec}


def _status(item: Object) -> Object:
    status = dict(item["status"])
    times = ("lastTransitionTime",)
    status["conditions"] = [{k: v for k, v in c.items() if k not in times} for c in status["conditions"]]
    status["url"] = status["url"].replace(item["metadata"]["namespace"], "NAMESPACE")
    return status


@pytest.fixture(scope="module")
def undisturbed(cluster: Cluster) -> tuple[Object, int, set[str]]:
    """The end state when nothing happens, the number of writes on the way to it, and what they wrote."""
    with cluster.namespace("undisturbed") as namespace:
        arguments = [*grant(namespace), "--no-leader-election"]  # as in the other runs: the lease's writes count too
        kubeconfig = cluster.service_account_kubeconfig(namespace.name, ACCOUNT)
        with FaultProxy(kubeconfig).running() as proxy:
            operator = Operator(proxy.kubeconfig(kubeconfig), cluster.folder / "undisturbed.log", arguments)
            operator.start()
            try:
                script(namespace)
                return end_state(namespace), proxy.writes, written(proxy, namespace)
            finally:
                operator.stop()


@pytest.mark.parametrize("killed_after", range(1, MOST_WRITES + 1))
def test_killed_after_the_kth_write_it_ends_like_the_undisturbed_run(
    cluster: Cluster, namespace: Namespace, undisturbed: tuple[Object, int, set[str]], killed_after: int
) -> None:
    expected, writes, objects = undisturbed
    if killed_after > writes:
        pytest.skip(f"the script takes {writes} writes")
    # Without an election: its lease would make the successor wait, which is another test's subject.
    arguments = [*grant(namespace), "--no-leader-election"]
    kubeconfig = cluster.service_account_kubeconfig(namespace.name, ACCOUNT)
    with FaultProxy(kubeconfig).running() as proxy:
        operator = Operator(proxy.kubeconfig(kubeconfig), cluster.folder / f"{namespace.name}.log", arguments)

        def kill(request: Request) -> None:
            if request.number == killed_after:
                operator.send(signal.SIGKILL)
                assert operator.process is not None
                operator.process.wait()
                operator.start()

        proxy.after = kill
        operator.start()
        try:
            script(namespace)
            assert end_state(namespace) == expected
            # Not their number: statuses that follow one another quickly are written once, as chance has it.
            assert written(proxy, namespace) == objects
            if proxy.writes < killed_after:
                pytest.skip(f"this run took {proxy.writes} writes: it was never killed")
        finally:
            operator.stop()


def test_the_script_has_no_more_writes_than_kills_are_tried(undisturbed: tuple[Object, int, set[str]]) -> None:
    assert undisturbed[1] <= MOST_WRITES


def misbehave(seed: int, share: float) -> Callable[[Request], Fault | None]:
    """Faults of every kind for a share of the requests: those that an API server can answer such a request with."""
    chance = random.Random(seed)
    anywhere = [Fault(status=429), Fault(status=500), Fault(hang_seconds=3), Fault(lose_answer=True)]
    conflict, expired = Fault(status=409), Fault(status=410)

    def decide(request: Request) -> Fault | None:
        if chance.random() > share:
            return None
        return chance.choice([*anywhere, conflict] if request.number else [*anywhere, expired])

    return decide


def start_again_if_it_ended(operator: Operator) -> int:
    """As a kubelet does; 1 when it did."""
    assert operator.process is not None
    if operator.process.poll() is None:
        return 0
    operator.start()
    return 1


@pytest.mark.timeout(900 + FAULT_SECONDS)
def test_faults_and_kills_at_random_leave_no_trace(cluster: Cluster, namespace: Namespace) -> None:
    """Errors, lost answers, hanging requests, dropped watches and kills, while tools are made, changed and deleted."""
    names = [f"tool-{index}" for index in range(8)]
    chance = random.Random(FAULT_SEED + 7)
    arguments = [*grant(namespace), "--no-leader-election", "--resync-seconds=5"]
    kubeconfig = cluster.service_account_kubeconfig(namespace.name, ACCOUNT)
    undisturbed = _comparable(_undisturbed(cluster, names))
    with FaultProxy(kubeconfig, misbehave(FAULT_SEED + 11, share=0.15)).running() as proxy:
        operator = Operator(proxy.kubeconfig(kubeconfig), cluster.folder / f"{namespace.name}.log", arguments)
        operator.start()
        try:
            starts, deadline = 1, time.monotonic() + FAULT_SECONDS
            while time.monotonic() < deadline:
                _change_something(namespace, chance, names)
                if chance.random() < 0.2:
                    proxy.drop_watches()
                if chance.random() < 0.03:
                    operator.send(signal.SIGKILL)
                time.sleep(0.3)
                starts += start_again_if_it_ended(operator)
            proxy.decide = lambda _: None
            namespace.apply({"apiVersion": "v1", "kind": "List", "items": [tool(name, AFTER) for name in names]})
            # The process may be ending itself just now: a watch that was answered with a 409 does that.
            until = time.monotonic() + 400
            while not (done := all(settled(namespace, name) for name in names)) and time.monotonic() < until:
                time.sleep(0.1)
                starts += start_again_if_it_ended(operator)
            assert done, f"no tool changes any more, and not all have settled:\n{operator.log.read_text()[-5000:]}"
            states: list[Object] = []

            def the_same() -> bool:
                states.append(end_state(namespace))
                return bool(_comparable(states[-1]) == undisturbed)

            with suppress(AssertionError):  # what the garbage collector takes away, the next resync makes again
                wait_for("the same", the_same, seconds=200, every=1)
            disturbed = states[-1]
        finally:
            operator.stop()
    print(f"the tools came to the same end; the operator was started {starts} times; seed {FAULT_SEED}")
    assert all(count >= 1 for count in disturbed["told"].values())
    assert _comparable(disturbed) == undisturbed


def _undisturbed(cluster: Cluster, names: list[str]) -> Object:
    """The same tools in a namespace where nothing happens."""
    with (
        cluster.namespace("calm") as calm,
        calm.operator(ACCOUNT, arguments=[*grant(calm), "--no-leader-election"]),
    ):
        calm.apply({"apiVersion": "v1", "kind": "List", "items": [tool(name, AFTER) for name in names]})
        for name in names:
            wait_for(f"{name} has settled", lambda name=name: settled(calm, name), seconds=240)
        return end_state(calm)


def _change_something(namespace: Namespace, chance: random.Random, names: list[str]) -> None:
    name = chance.choice(names)
    if chance.random() < 0.2:
        namespace.kubectl("delete", "visiontool", name, "--ignore-not-found", "--wait=false")
    else:
        spec = chance.choice([BEFORE, AFTER, {**AFTER, "replicas": chance.randrange(3)}])
        namespace.apply(tool(name, spec))


def _comparable(state: Object) -> Object:
    """Children, and statuses without the number of the generation they speak of."""

    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: strip(inner) for key, inner in value.items() if key != "observedGeneration"}
        return [strip(inner) for inner in value] if isinstance(value, list) else value

    return {"children": state["children"], "tools": strip(state["tools"])}
