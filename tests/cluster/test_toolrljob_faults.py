"""A ToolRLJob ends the same whatever happens to the operator and its connection on the way."""

from __future__ import annotations

import random
import re
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.cluster.faultproxy import FAULT_SECONDS, FAULT_SEED, Fault, FaultProxy, Request
from tests.support.cluster.forkserver import ForkedOperator, ForkServer
from tests.support.cluster.joblab import ROW, Lab, Watcher, job, overlaps, sft, table, watched, words
from tests.support.cluster.shipped_access import ACCOUNT, grant
from tests.support.cluster.testcluster import Cluster, Namespace, Object

AT_A_TIME = 6
"""Namespaces in which the script is played side by side."""


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    with ForkServer.running() as server:
        yield server


@contextmanager
def stage_set(cluster: Cluster) -> Iterator[tuple[Lab, list[str]]]:
    """A namespace with a claim, and the arguments of an operator for it."""
    name = f"faults-{secrets.token_hex(4)}"
    lab = Lab(Namespace(cluster, name))
    lab.create("/api/v1/namespaces", {"metadata": {"name": name}})
    try:
        lab.prepare()
        yield lab, [*grant(lab.namespace), "--no-leader-election", "--log-format=text"]
    finally:
        cluster.request("DELETE", f"/api/v1/namespaces/{name}")


# ---- the script ------------------------------------------------------------------------------------------------------


def scripted() -> Object:
    return job("played", sft(), table(), failurePolicy={"backoffSeconds": 0, "maxBackoffSeconds": 0})


class Script:
    """The life of one job: its first attempt fails, the second is suspended, the third succeeds, then the table."""

    def __init__(self, lab: Lab, name: str = "played") -> None:
        self.lab, self.name = lab, name
        self.ended: set[str] = set()
        self.suspended = self.resumed = False

    def play(self, check: Callable[[], None], seconds: float = 360) -> None:
        deadline = time.monotonic() + seconds
        while not self.over:
            assert time.monotonic() < deadline, f"after {seconds:g} s: {self.lab.get(self.name)}"
            check()
            self.go_on()
            time.sleep(0.15)

    @property
    def over(self) -> bool:
        return "True" in (self.lab.condition(self.name, type_)[0] for type_ in ("Complete", "Failed"))

    def go_on(self) -> None:
        """Do what is due now."""
        pods = self.lab.pods(self.name)
        if self.suspended and not self.resumed:
            asleep = self.lab.condition(self.name, "Suspended")[0] == "True"
            if asleep and not pods:
                self.lab.change(self.name, suspend=False)
                self.resumed = True
            return
        for pod in pods:
            if pod["status"].get("phase") == "Running" and pod["metadata"]["uid"] not in self.ended:
                self.act(pod, len(pods))

    def act(self, pod: Object, together: int) -> None:
        labels = pod["metadata"]["labels"]
        stage, attempt = labels["thinkimg.dev/stage"], int(labels["thinkimg.dev/attempt"])
        rank = pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"]
        if (stage, attempt, rank) == ("sft", 1, "0"):
            return
        if (stage, attempt) == ("sft", 2):
            if together == 2 and not self.suspended:
                self.lab.change(self.name, suspend=True)
                self.suspended = True
            return
        self.ended.add(pod["metadata"]["uid"])
        results: dict[str, Any] = {"results": [ROW]} if stage == "table" else {}
        code = 70 if attempt == 1 and stage == "sft" else 0
        self.lab.end(pod, exit_code=code, message=words(stage, **results))


def end_state(lab: Lab, name: str = "played") -> Object:
    """What is there at the end, without times, random letters, and the job's uid in names."""
    uid = (lab.get(name) or {})["metadata"]["uid"][:5]

    def plain(value: Any) -> Any:
        return _plain(value, uid)

    events = Counter((reason, plain(note)) for reason, note in lab.events(name))
    path = f"/api/v1/namespaces/{lab.name}"
    ours = f"labelSelector=thinkimg.dev/job={name}"
    return {
        "status": plain((lab.get(name) or {}).get("status")),
        "jobs": [(plain(body["metadata"]["name"]), body["spec"]["completions"]) for body in lab.jobs(name)],
        "pods": sorted((plain(pod["metadata"]["name"]), pod["status"]["phase"]) for pod in lab.pods(name)),
        "others": sorted(
            plain(body["metadata"]["name"])
            for kind in ("services", "configmaps")
            for body in lab.list(f"{path}/{kind}?{ours}")
        ),
        "events": dict(events),
    }


def compare(found: Any, expected: Any, name: str = "played", where: str = "") -> list[str]:
    """Where an end state differs from the one that is expected, of which `name` is another job's."""
    if where.endswith("/manifestDigest") and name != "played":  # the manifest has the job's name
        return []
    if isinstance(expected, dict) and isinstance(found, dict):
        ours = {_named(key, name): value for key, value in found.items()}
        keys = [*expected, *(key for key in ours if key not in expected)]
        return [line for key in keys for line in compare(ours.get(key), expected.get(key), name, f"{where}/{key}")]
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        pairs = enumerate(zip(found, expected, strict=True))
        return [line for index, (one, other) in pairs for line in compare(one, other, name, f"{where}/{index}")]
    return [] if _named(found, name) == expected else [f"{where}: {found!r} instead of {expected!r}"]


def _named(value: Any, name: str) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_named(inner, name) for inner in value)
    return value.replace(name, "played") if isinstance(value, str) else value


def _plain(value: Any, uid: str) -> Any:
    if isinstance(value, dict):
        return {
            key: _plain(inner, uid) for key, inner in value.items() if not re.search(r"Time$|^suspendedSeconds$", key)
        }
    if isinstance(value, list):
        return [_plain(inner, uid) for inner in value]
    if not isinstance(value, str):
        return value
    return re.sub(r"(-UID-\d+)-[a-z0-9]{5}\b", r"\1", value.replace(f"-{uid}", "-UID"))


def check_watch(jobs: Watcher, pods: Watcher) -> None:
    """What nobody may ever have seen: two attempts at once, or a Job made twice."""
    assert overlaps(pods) == []
    made = Counter(seen.name for seen in jobs.sightings if seen.type == "ADDED")
    assert not [name for name, times in made.items() if times > 1]


# ---- killed at every write -------------------------------------------------------------------------------------------


def play(cluster: Cluster, server: ForkServer, killed_after: int = 0) -> tuple[Object, int]:
    """Play the script with an operator that dies once the API server has carried out its k-th write, and is started
    again; the end state and the number of writes."""
    with stage_set(cluster) as (lab, arguments):
        kubeconfig = cluster.service_account_kubeconfig(lab.name, ACCOUNT)
        with FaultProxy(kubeconfig).running() as proxy, watched(lab) as (jobs, pods):
            log = cluster.folder / f"{lab.name}.log"
            operator = ForkedOperator(server, proxy.kubeconfig(kubeconfig), log, arguments)

            def kill(request: Request) -> None:
                if killed_after and request.number == killed_after:
                    operator.restart()

            proxy.after = kill
            operator.start()
            try:
                lab.submit(scripted())
                Script(lab).play(operator.check)
                time.sleep(1)  # whatever would still come
                found, writes = end_state(lab), proxy.writes
            finally:
                operator.kill()
        check_watch(jobs, pods)
        return found, writes


@pytest.fixture(scope="module")
def undisturbed(cluster: Cluster, server: ForkServer) -> tuple[Object, int]:
    """The end state when nothing happens, and the number of writes on the way to it."""
    return play(cluster, server)


def test_the_undisturbed_run_is_what_the_script_means(undisturbed: tuple[Object, int]) -> None:
    found, _ = undisturbed
    stages = [(stage["name"], stage["state"], stage["attempt"]) for stage in found["status"]["stages"]]
    assert stages == [("sft", "Succeeded", 3), ("table", "Succeeded", 1)]
    assert found["status"]["restarts"] == 1
    assert found["status"]["results"] == [ROW]
    assert found["jobs"] == [("played-sft-3-UID", 2), ("played-table-1-UID", 1)]
    assert Counter(reason for reason, _ in found["events"]) == {
        "StageStarted": 2, "AttemptFailed": 1, "StageRestarting": 1, "Suspended": 1, "Resumed": 1, "StageSucceeded": 2,
        "Complete": 1,
    }  # fmt: skip


@pytest.mark.timeout(1800)
def test_killed_after_any_write_it_ends_like_the_undisturbed_run(
    cluster: Cluster, server: ForkServer, undisturbed: tuple[Object, int]
) -> None:
    expected, writes = undisturbed

    def differs(killed_after: int) -> str:
        try:
            found, _ = play(cluster, server, killed_after)
        except AssertionError as error:
            return f"killed after write {killed_after}: {error}"
        return f"killed after write {killed_after}: {differences}" if (differences := compare(found, expected)) else ""

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        found = list(pool.map(differs, range(1, writes + 1)))
    assert not any(found), "\n".join(filter(None, found))


# ---- everything at once ----------------------------------------------------------------------------------------------


def misbehave(seed: int, share: float) -> Callable[[Request], Fault | None]:
    """Faults of every kind for a share of the requests."""
    chance = random.Random(seed)
    kinds = [*(Fault(status=status) for status in (409, 410, 429, 500)), Fault(hang_seconds=2), Fault(lose_answer=True)]
    return lambda request: chance.choice(kinds) if chance.random() < share else None


@pytest.mark.timeout(900 + FAULT_SECONDS)
def test_faults_and_kills_at_random_leave_no_trace(
    cluster: Cluster, server: ForkServer, undisturbed: tuple[Object, int]
) -> None:
    """Errors, lost answers, hanging requests, dropped watches and kills, while jobs are played one after another."""
    with stage_set(cluster) as (lab, arguments):
        kubeconfig = cluster.service_account_kubeconfig(lab.name, ACCOUNT)
        with FaultProxy(kubeconfig, misbehave(FAULT_SEED + 3, 0.12)).running() as proxy, watched(lab) as (jobs, pods):
            log = cluster.folder / f"{lab.name}.log"
            arguments += ["--resync-seconds=5"]
            operator = ForkedOperator(server, proxy.kubeconfig(kubeconfig), log, arguments)
            operator.start()
            try:
                played = disturbed_plays(lab, operator, proxy, seconds=FAULT_SECONDS)
                found = {name: end_state(lab, name) for name in played}
            finally:
                operator.kill()
        check_watch(jobs, pods)
    assert len(found) >= 3
    print(f"{len(found)} jobs came to one end; the operator was started {operator.starts} times; seed {FAULT_SEED}")
    expected = undisturbed[0]
    wrong = {name: differences for name, state in found.items() if (differences := compare(state, expected, name))}
    assert wrong == {}


def disturbed_plays(lab: Lab, operator: ForkedOperator, proxy: FaultProxy, seconds: float) -> list[str]:
    """Play jobs for `seconds` of disturbance, then let those that are left end in peace; their names."""
    until, over = time.monotonic() + seconds, threading.Event()
    chance = random.Random(FAULT_SEED + 5)
    names: list[str] = []

    def keep_playing(number: int) -> None:
        turn = 0
        while time.monotonic() < until:
            turn += 1
            name = f"played-{'abc'[number]}{turn}"
            names.append(name)
            lab.submit(scripted() | {"metadata": {"name": name}})
            Script(lab, name).play(lambda: None, seconds=240)

    def disturb() -> None:
        while time.monotonic() < until:
            time.sleep(chance.uniform(1, 5))
            proxy.drop_watches()
            if chance.random() < 0.5:
                operator.restart()
        proxy.decide = lambda _: None

    def keep_alive() -> None:
        """A watch that is answered with a 409 ends kopf, and with it the process; the kubelet starts it again."""
        while not over.wait(0.5):
            operator.revive()

    with ThreadPoolExecutor(5) as pool:
        done = [pool.submit(keep_playing, number) for number in range(3)] + [pool.submit(disturb)]
        kubelet = pool.submit(keep_alive)
        try:
            for future in done:
                future.result()
        finally:
            over.set()
        kubelet.result()
    time.sleep(1)
    return names
