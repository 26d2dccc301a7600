"""The operator as a process: its probes, its metrics, its log, and the commands of its guide."""

from __future__ import annotations

import json
import os
import re
import subprocess
import urllib.request
from pathlib import Path

import binaries

from tests.support import REPOSITORY
from tests.support.cluster.shipped_access import ACCOUNT, grant
from tests.support.cluster.testcluster import Namespace, wait_for

GUIDE = REPOSITORY / "docs" / "guides" / "operator.md"


def test_probes_metrics_and_log(namespace: Namespace) -> None:
    with namespace.operator(ACCOUNT, arguments=[*grant(namespace), "--resync-seconds=1"]) as operator:
        wait_for("a resync", lambda: operator.check() or operator.metric("thinkimg_resyncs_total"))
        spec = {"tool": "OCR"}
        tool = {"apiVersion": "thinkimg.dev/v1alpha1", "kind": "VisionTool", "metadata": {"name": "ocr"}, "spec": spec}
        namespace.apply(tool)
        wait_for("it is looked at", lambda: operator.metric("controller_runtime_reconcile_total"))
        wait_for("its children are seen", lambda: operator.metric("thinkimg_watch_events_total") >= 2)
        assert operator.metric("leader_election_master_status") == 1
        address = re.search(r"probes and metrics at ([\d.:]+)", operator.log.read_text())
        assert address is not None
        for path, said in (("livez", "alive\n"), ("readyz", "ready\n")):
            with urllib.request.urlopen(f"http://{address[1]}/{path}", timeout=10) as page:
                assert page.read().decode() == said
    lines = [json.loads(line) for line in operator.log.read_text().splitlines()]
    assert {"time", "level", "logger", "event"} <= lines[0].keys()
    assert lines[-1]["event"] == "lease released"


def test_the_guide_runs(tmp_path: Path) -> None:
    """The commands of docs/guides/operator.md, as they stand there."""
    script = re.findall(r"```bash\n(.*?)```", GUIDE.read_text(), re.DOTALL)[1]
    assert "thinkimg-operator run" in script
    programs = tmp_path / "programs"
    programs.mkdir()
    for program, path in binaries.ensure(binaries.FOR_TESTS).items():
        (programs / program).symlink_to(path)
    environment = {
        **os.environ,
        "KUBEBUILDER_ASSETS": str(programs),
        "THINKIMG_CLUSTER_CACHE": str(tmp_path / "cache"),  # so that the developer's own cluster is left alone
    }
    done = subprocess.run(
        ["bash", "-euc", script], cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=800
    )
    assert done.returncode == 0, done.stderr
    for expected in (
        "visiontool.thinkimg.dev/ocr condition met",
        "visiontool.thinkimg.dev/crop condition met",
        "is down",
    ):
        assert expected in done.stdout
