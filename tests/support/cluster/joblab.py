"""ToolRLJobs in tests: a job with small stages, its simulated pods, how they end, and who saw what when."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.support.cluster.shipped_access import ACCOUNT, grant
from tests.support.cluster.testcluster import Cluster, Namespace, Object, Operator, wait_for
from thinkimg.api.pod_contract import Annotation, Label

MERGE = "application/merge-patch+json"
JOBS = "/apis/thinkimg.dev/v1alpha1/namespaces/{}/toolrljobs"
CLAIM = "data"
"""A bound claim in every namespace of `job_namespace`."""
ROW = {"model": "sft", "accuracy": "0.778", "ci95": ["0.730", "0.820"], "toolCallsPerAnswer": "1.40"}


def job(name: str, *stages: Object, **spec: Any) -> Object:
    """A job; without `stages`, one SFT stage of two pods."""
    return {
        "apiVersion": "thinkimg.dev/v1alpha1",
        "kind": "ToolRLJob",
        "metadata": {"name": name},
        "spec": {
            "model": {"uri": "hf://org/model"},
            "data": {"train": {"uri": "trajectories.jsonl"}, "test": {"uri": "charts://?questions=10"}},
            "storage": {"claimName": CLAIM},
            "stages": list(stages) or [sft()],
            **spec,
        },
    }


def sft(name: str = "sft", nodes: int = 2, **more: Any) -> Object:
    return {"name": name, "type": "SFT", "nodes": nodes, "sft": {}, **more}


def table(*models: str) -> Object:
    return {"name": "table", "type": "Evaluate", "evaluate": {"models": list(models) or ["sft"]}}


def words(stage: str, state: str = "Succeeded", **more: Any) -> str:
    """A stage's termination message."""
    return json.dumps({"stage": stage, "state": state, "seconds": 1.0, **more})


@contextmanager
def job_namespace(cluster: Cluster, hint: str, arguments: Sequence[str] = ()) -> Iterator[Lab]:
    """A namespace with a bound claim and an operator at work, under the rights that the chart ships."""
    with cluster.namespace(hint) as namespace:
        lab = Lab(namespace)
        lab.prepare()
        access = [*grant(namespace), "--log-format=text", "--no-leader-election", *arguments]
        with namespace.operator(ACCOUNT, arguments=access) as operator:
            lab.operator = operator
            yield lab


class Lab:
    """One namespace in which jobs run."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self.cluster = namespace.cluster
        self.name = namespace.name
        self.operator: Operator | None = None

    def prepare(self) -> None:
        """The claim, and a volume for it."""
        metadata = {"name": f"{self.name}-{CLAIM}"}
        capacity = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany"]}
        volume = {**capacity, "hostPath": {"path": "/data"}, "claimRef": {"namespace": self.name, "name": CLAIM}}
        self.create("/api/v1/persistentvolumes", {"metadata": metadata, "spec": {**volume, "storageClassName": ""}})
        spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": ""}
        path = f"/api/v1/namespaces/{self.name}/persistentvolumeclaims"
        self.create(path, {"metadata": {"name": CLAIM}, "spec": {**spec, "volumeName": metadata["name"]}})

    # ---- objects ----------------------------------------------------------------------------------------------------

    def create(self, path: str, body: Object) -> Object:
        status, answer = self.cluster.request("POST", path, body)
        assert status == 201, answer
        return answer

    def submit(self, body: Object) -> None:
        self.create(JOBS.format(self.name), body)

    def get(self, name: str) -> Object | None:
        status, answer = self.cluster.request("GET", f"{JOBS.format(self.name)}/{name}")
        return answer if status == 200 else None

    def patch(self, path: str, patch: Object) -> Object:
        status, answer = self.cluster.request("PATCH", path, patch, content_type=MERGE)
        assert status == 200, answer
        return answer

    def change(self, name: str, **spec: Any) -> None:
        """Change fields of a job's spec."""
        self.patch(f"{JOBS.format(self.name)}/{name}", {"spec": spec})

    def list(self, path: str) -> list[Object]:
        status, answer = self.cluster.request("GET", path)
        assert status == 200, answer
        return list(answer["items"])

    def jobs(self, name: str) -> list[Object]:
        """Jobs of a ToolRLJob, by name."""
        path = f"/apis/batch/v1/namespaces/{self.name}/jobs?labelSelector={Label.JOB}={name}"
        return sorted(self.list(path), key=lambda body: body["metadata"]["name"])

    def pods(self, name: str, stage: str = "", attempt: int = 0) -> list[Object]:
        """Pods of a job (of an attempt), by their rank."""
        selector = f"{Label.JOB}={name}" + (f",{Label.STAGE}={stage}" if stage else "")
        selector += f",{Label.ATTEMPT}={attempt}" if attempt else ""
        pods = self.list(f"/api/v1/namespaces/{self.name}/pods?labelSelector={selector}")
        return sorted(pods, key=lambda pod: pod["metadata"]["annotations"][Annotation.COMPLETION_INDEX])

    def events(self, name: str) -> list[tuple[str, str]]:
        """Reason and note of a job's Events, oldest first."""
        path = f"/apis/events.k8s.io/v1/namespaces/{self.name}/events"
        events = [event for event in self.list(path) if event["regarding"].get("name") == name]
        return [(event["reason"], event["note"]) for event in sorted(events, key=lambda event: event["eventTime"])]

    # ---- waiting ----------------------------------------------------------------------------------------------------

    def condition(self, name: str, type_: str) -> tuple[str, str, str]:
        """Status, reason, message; empty while there is none."""
        found = ((self.get(name) or {}).get("status") or {}).get("conditions", [])
        said = [(c["status"], c["reason"], c["message"]) for c in found if c["type"] == type_]
        return said[0] if said else ("", "", "")

    def comes_to(self, name: str, type_: str, status: str, reason: str, *, seconds: float = 300) -> str:
        """Wait for a condition; its message."""

        def check() -> str | None:
            self._operator_lives()
            found = self.condition(name, type_)
            return found[2] if found[:2] == (status, reason) else None

        return wait_for(f"{name} is {type_}={status} because of {reason}", check, seconds=seconds)

    def runs(self, name: str, stage: str = "sft", attempt: int = 1, *, seconds: float = 300) -> list[Object]:
        """Wait until an attempt runs, all pods ready, and the status says so; its pods."""

        def check() -> list[Object] | None:
            self._operator_lives()
            stands = self.stage(name, stage)
            pods = self.pods(name, stage, attempt)
            ready = self.condition(name, "PodsReady")[0] == "True"
            return pods if ready and stands["attempt"] == attempt and stands["state"] == "Running" else None

        return wait_for(f"{name}: attempt {attempt} of {stage} runs", check, seconds=seconds)

    def stage(self, name: str, stage: str) -> Object:
        """A stage's status."""
        stages = ((self.get(name) or {}).get("status") or {}).get("stages", [])
        return next((s for s in stages if s["name"] == stage), {"name": stage, "attempt": 0, "state": ""})

    def _operator_lives(self) -> None:
        if self.operator is not None:
            self.operator.check()

    # ---- what happens to pods ---------------------------------------------------------------------------------------

    def pod_path(self, pod: Object) -> str:
        return f"/api/v1/namespaces/{self.name}/pods/{pod['metadata']['name']}"

    def end(self, pod: Object, exit_code: int = 0, message: str = "", reason: str = "") -> None:
        """Let a running pod's container end."""
        marks = {"exit-code": str(exit_code), "message": message, "reason": reason, "finish-after": "0s"}
        notes = {f"sim.thinkimg.dev/{key}": value for key, value in marks.items() if value}
        self.patch(self.pod_path(pod), {"metadata": {"annotations": notes}})

    def say(self, pod: Object, *lines: str) -> None:
        """Write into a pod's log, as a container runtime keeps it."""
        with self.namespace.log_of_pod(pod["metadata"]["name"]).open("a") as log:
            log.writelines(f"2026-01-01T00:00:00.000000000Z stdout F {line}\n" for line in lines)
        path = f"{self.pod_path(pod)}/log?container=stage"
        wait_for("the simulated node serves the log", lambda: self.cluster.answers(path))

    def succeed(self, name: str, stage: str = "sft", attempt: int = 1, **more: Any) -> None:
        """Wait until an attempt runs; all its pods end well. `more` goes into rank 0's last words."""
        for rank, pod in enumerate(self.runs(name, stage, attempt)):
            self.end(pod, message=words(stage, **more) if rank == 0 else "")

    def delete_pod(self, pod: Object) -> None:
        self.cluster.request("DELETE", self.pod_path(pod))


# ---- an independent view ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sighting:
    """An object as a watch showed it."""

    at: float
    """Monotonic seconds."""
    type: str
    """ADDED, MODIFIED or DELETED."""
    body: Object

    @property
    def name(self) -> str:
        return str(self.body["metadata"]["name"])

    @property
    def attempt(self) -> tuple[str, str, int]:
        """Job, stage, number."""
        labels = self.body["metadata"]["labels"]
        return labels[Label.JOB], labels[Label.STAGE], int(labels[Label.ATTEMPT])

    @property
    def deleting(self) -> bool:
        return "deletionTimestamp" in self.body["metadata"]

    @property
    def ready(self) -> bool:
        """A pod whose containers are ready."""
        conditions = {c["type"]: c["status"] for c in self.body["status"].get("conditions", [])}
        return conditions.get("Ready") == "True" and not self.deleting

    @property
    def alive(self) -> bool:
        """A pod whose process may run."""
        return self.type != "DELETED" and self.body["status"].get("phase") not in ("Succeeded", "Failed")

    @property
    def unwell(self) -> bool:
        """A pod that will not succeed, as anybody can see."""
        status = self.body["status"]
        ready = next((c for c in status.get("conditions", []) if c["type"] == "Ready"), {"status": "False"})
        lost = status.get("phase") == "Running" and ready["status"] != "True"
        return status.get("phase") == "Failed" or (self.deleting and status.get("phase") != "Succeeded") or lost


@dataclass
class Watcher:
    """Everything that a watch of a kind showed in one namespace, with times of its own clock."""

    path: str
    port: int
    sightings: list[Sighting] = field(default_factory=list)

    def run(self, until: Callable[[], bool]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        connection.request("GET", f"{self.path}?watch=1&allowWatchBookmarks=false&labelSelector={Label.JOB}")
        answer = connection.getresponse()
        assert answer.status == 200
        while not until():
            line = answer.readline()
            if not line:
                return
            event = json.loads(line)
            self.sightings.append(Sighting(time.monotonic(), event["type"], event["object"]))

    def wait_until_ready(self, attempt: tuple[str, str, int], count: int, seconds: float = 300) -> list[Object]:
        """The pods of an attempt, once all are ready, by rank."""
        ready: dict[str, Object] = {}
        looked, deadline = 0, time.monotonic() + seconds
        while len(ready) < count:
            assert time.monotonic() < deadline, f"pods of {attempt} are not ready after {seconds:g} s"
            for seen in self.sightings[looked:]:
                looked += 1
                if seen.attempt == attempt and seen.ready:
                    ready[seen.name] = seen.body
            time.sleep(0.05)
        return [ready[name] for name in sorted(ready)]


@contextmanager
def watched(lab: Lab) -> Iterator[tuple[Watcher, Watcher]]:
    """Watch Jobs and pods of the namespace from now on."""
    port = lab.cluster.proxy_port
    jobs = Watcher(f"/apis/batch/v1/namespaces/{lab.name}/jobs", port)
    pods = Watcher(f"/api/v1/namespaces/{lab.name}/pods", port)
    done = threading.Event()
    for watcher in (jobs, pods):
        threading.Thread(target=watcher.run, args=[done.is_set], daemon=True).start()
    time.sleep(0.5)
    try:
        yield jobs, pods
    finally:
        time.sleep(0.5)
        done.set()


def overlaps(pods: Watcher) -> list[str]:
    """Moments at which pods of two attempts of one job were alive."""
    alive: dict[str, Sighting] = {}
    found = []
    for seen in list(pods.sightings):
        alive.pop(seen.name, None)
        if seen.alive:
            alive[seen.name] = seen
        attempts = {other.attempt for other in alive.values() if other.attempt[0] == seen.attempt[0]}
        if len(attempts) > 1:
            found.append(f"{seen.name}: {sorted(attempts)}")
    return found
