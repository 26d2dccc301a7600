"""The previous commit's operator starts jobs and the current one takes over: no pod of a trainer is disturbed."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from tests.support.cluster.joblab import Lab, job, sft, table
from tests.support.cluster.shipped_access import ACCOUNT, grant
from tests.support.cluster.testcluster import OPERATOR, Namespace, Operator, wait_for


def test_no_pod_of_a_trainer_restarts(namespace: Namespace, previous: Path) -> None:
    if not (previous / "operator" / "thinkimg_operator" / "toolrljob" / "reasons.py").exists():
        pytest.skip("the commit before this one does not run ToolRLJobs")
    lab = Lab(namespace)
    lab.prepare()
    arguments = [*grant(namespace), "--no-leader-election", "--resync-seconds=2"]
    kubeconfig = namespace.cluster.kubeconfig  # it had the rights of its own chart
    paths = {"PYTHONPATH": f"{previous / 'operator'}:{previous}"}
    old = Operator(
        kubeconfig, previous / "operator-of-jobs.log", arguments, paths, command=[sys.executable, "-c", OPERATOR]
    )
    old.start()
    try:
        for name in ("first", "second", "restarted"):
            lab.submit(job(name, sft(), table()))
        lab.end(lab.runs("restarted")[0], exit_code=1)
        lab.runs("restarted", attempt=2)
        lab.succeed("second")
        lab.runs("second", "table")
        lab.runs("first")
    finally:
        old.stop()
    before = {name: pods_of(lab, name) for name in ("first", "second", "restarted")}
    with namespace.operator(ACCOUNT, arguments=arguments) as current:
        resynced = lambda: current.check() or current.metric("thinkimg_resyncs_total") >= 2  # noqa: E731
        wait_for("it has looked at everything twice", resynced)
        time.sleep(1)
        assert {name: pods_of(lab, name) for name in before} == before
        lab.succeed("first")
        lab.runs("first", "table")


def pods_of(lab: Lab, name: str) -> set[str]:
    return {pod["metadata"]["uid"] for pod in lab.pods(name)}
