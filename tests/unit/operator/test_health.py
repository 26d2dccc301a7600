"""When the operator asks to be restarted: a watch that is dead, a worker that is stuck or ended; nothing else."""

import asyncio
import functools
import time

import pytest
from kubernetes.aio.client import ApiClient, Configuration
from thinkimg_operator.cluster import Cluster
from thinkimg_operator.controller import Controller, Hub, is_ending
from thinkimg_operator.kinds import Body, Key
from thinkimg_operator.metrics import Metrics
from thinkimg_operator.workqueue import Priority, Requeue

KEY = Key("VisionTool", "team", "ocr")


def scenario(test):
    """A test that is a coroutine."""

    @functools.wraps(test)
    def run() -> None:
        asyncio.run(test())

    return run


class Told:
    """A reconciler that does what it is told."""

    kind = "VisionTool"
    child_kinds = ()

    def __init__(self, action) -> None:
        self._action = action

    async def reconcile(self, key):
        return await self._action()

    def interested(self, body):
        return ()


def body(version: int, name: str = "ocr") -> Body:
    metadata = {"name": name, "namespace": "team", "uid": name, "resourceVersion": str(version)}
    return {"apiVersion": "thinkimg.dev/v1alpha1", "kind": "VisionTool", "metadata": metadata, "spec": {}}


async def nothing():
    return None


def hub(action=nothing) -> Hub:
    metrics = Metrics()
    cluster = Cluster(ApiClient(Configuration()), metrics=metrics)
    return Hub(cluster, [Controller(Told(action), cluster, metrics, workers=1)], metrics)


@scenario
async def test_a_watch_that_does_not_show_what_a_list_showed_is_dead():
    found = hub()
    found.event("VisionTool", "ADDED", body(3))
    found.compare_with_watch(body(5))
    assert found.sick(watch_seconds=60) == ""
    assert found.sick(watch_seconds=-1).startswith("the watch of VisionTool is dead")
    found.event("VisionTool", "MODIFIED", body(5))
    assert found.sick(watch_seconds=-1) == ""


@scenario
async def test_a_watch_is_not_blamed_for_what_is_gone():
    found = hub()
    found.event("VisionTool", "ADDED", body(3))
    found.compare_with_watch(body(5))
    found.stop_expecting("VisionTool", [])
    assert found.sick(watch_seconds=-1) == ""


def child(tool: str, **metadata) -> Body:
    owner = {"apiVersion": "thinkimg.dev/v1alpha1", "kind": "VisionTool", "name": tool, "uid": tool, "controller": True}
    made = {
        "name": tool,
        "namespace": "team",
        "uid": f"{tool}-child",
        "resourceVersion": "7",
        "ownerReferences": [owner],
    }
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": made | metadata}


@scenario
async def test_new_objects_and_children_that_end_go_before_children_that_start():
    found = hub()
    found.event("Deployment", "MODIFIED", child("starting"))
    found.event("Deployment", "MODIFIED", child("ending", deletionTimestamp="2026-01-01T00:00:00Z"))
    await asyncio.sleep(0.2)
    found.event("VisionTool", "ADDED", body(3, "new"))
    queue = found.controllers["VisionTool"].queue
    assert [(await queue.get()).name for _ in range(len(queue))] == ["ending", "new", "starting"]


@scenario
async def test_a_second_look_goes_behind_what_nobody_has_looked_at():
    looked, free = [], asyncio.Event()

    class Patient(Told):
        async def reconcile(self, key):
            looked.append(key.name)
            if key.name == "busy":
                await free.wait()
            return Requeue(0.01, Priority.NEWS) if looked == ["old"] else None

    found = hub()
    controller = found.controllers["VisionTool"]
    controller.reconciler = Patient(nothing)
    controller.start()
    for version, name in enumerate(("old", "busy"), start=1):
        found.event("VisionTool", "ADDED", body(version, name))
    await asyncio.sleep(0.1)
    found.event("VisionTool", "ADDED", body(3, "new"))
    free.set()
    await asyncio.sleep(0.1)
    await controller.stop(1)
    assert looked == ["old", "busy", "new", "old"]


@pytest.mark.parametrize(
    ("status", "ending"),
    [
        ({"phase": "Running"}, False),
        ({"phase": "Failed"}, True),
        ({"phase": "Running", "conditions": [{"type": "DisruptionTarget", "status": "True"}]}, True),
        ({"phase": "Running", "conditions": [{"type": "DisruptionTarget", "status": "False"}]}, False),
        ({"active": 1, "conditions": [{"type": "FailureTarget", "status": "True"}]}, True),
        ({"conditions": [{"type": "Complete", "status": "True"}]}, False),
        ({}, False),
    ],
)
def test_what_fails_is_ending(status: Body, ending: bool):
    assert is_ending("MODIFIED", {"metadata": {}, "status": status}) is ending


@scenario
async def test_a_worker_that_hangs_is_stuck_and_one_that_works_is_not():
    hanging = asyncio.Event()

    async def action():
        await hanging.wait()

    found = hub(action)
    controller = found.controllers["VisionTool"]
    controller.start()
    controller.queue.add(KEY)
    await asyncio.sleep(0.05)
    assert found.sick(stuck_seconds=60) == ""
    assert "has been at one object" in found.sick(stuck_seconds=0.01)
    hanging.set()
    await asyncio.sleep(0.05)
    assert found.sick(stuck_seconds=0.01) == ""
    await controller.stop(within=1)


@scenario
async def test_a_stop_waits_for_what_is_under_way_and_for_nothing_else():
    going_on, finished = asyncio.Event(), []

    async def action():
        await going_on.wait()
        finished.append(True)

    found = hub(action)
    controller = found.controllers["VisionTool"]
    controller.start()
    controller.queue.add(KEY)
    await asyncio.sleep(0.05)
    asyncio.get_running_loop().call_later(0.1, going_on.set)
    await controller.stop(within=60)
    assert finished == [True]
    started = time.monotonic()
    await controller.stop(within=60)
    assert time.monotonic() - started < 50


@scenario
async def test_a_failure_is_tried_again_and_kills_no_worker():
    tries = []

    async def action():
        tries.append(True)
        if len(tries) < 3:
            raise RuntimeError("a bug")

    found = hub(action)
    controller = found.controllers["VisionTool"]
    controller.start()
    controller.queue.add(KEY)
    async with asyncio.timeout(5):
        while len(tries) < 3:
            await asyncio.sleep(0.01)
    assert found.sick() == ""
    await controller.stop(within=1)


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level("CRITICAL")
