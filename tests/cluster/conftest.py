"""A real control plane for the tests of this folder: API server, controllers, scheduler, simulated GPU nodes.

Which one: the cluster that THINKIMG_TEST_KUBECONFIG names, otherwise a new one of the programs that hack/cluster finds
or builds. Where none can be had the tests are skipped, loudly; with CI=true they fail.
"""

from __future__ import annotations

import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import binaries
import pytest

from tests.support import REPOSITORY
from tests.support.cluster.testcluster import Cluster, Namespace

HERE = Path(__file__).parent
NO_PLANE = "no control plane: "
_unavailable: str | None = None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What speaks of the whole run comes last among the tests of this folder."""
    places = [place for place, item in enumerate(items) if HERE in item.path.parents]
    ordered = sorted((items[place] for place in places), key=lambda item: item.path.name == "test_whole_run.py")
    for place, item in zip(places, ordered, strict=True):
        items[place] = item


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build what is missing before the first test, where no time-out of a test applies."""
    global _unavailable
    wanted = any(HERE in item.path.parents for item in session.items)
    if not wanted or session.config.option.collectonly or os.environ.get("THINKIMG_TEST_KUBECONFIG"):
        return
    try:
        with session.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            binaries.ensure(binaries.FOR_TESTS)
    except binaries.BinariesError as error:
        _unavailable = str(error)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Said from the reports, because a worker of pytest-xdist that skipped the tests has no terminal."""
    skipped = {str(report.longrepr) for report in terminalreporter.stats.get("skipped", [])}
    reason = next((text for text in skipped if NO_PLANE in text), None)
    if reason:
        terminalreporter.section("THE CLUSTER TESTS DID NOT RUN", red=True, bold=True)
        terminalreporter.write_line(f"There is no control plane: {reason.partition(NO_PLANE)[2]}")
        terminalreporter.write_line(
            "Name a cluster (THINKIMG_TEST_KUBECONFIG) or programs (KUBEBUILDER_ASSETS), or see"
        )
        terminalreporter.write_line("docs/guides/cluster-development.md.")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The control plane that all tests share, with the CRDs installed."""
    if named := os.environ.get("THINKIMG_TEST_KUBECONFIG"):
        cluster = Cluster.named(Path(named), tmp_path_factory.mktemp("cluster"))
        yield cluster
        cluster.close()
        return
    if _unavailable:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must run the cluster tests, but {_unavailable}")
        pytest.skip(f"{NO_PLANE}{_unavailable}")
    with Cluster.started(tmp_path_factory.mktemp("cluster") / "plane") as cluster:
        yield cluster


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Namespace]:
    """A namespace of the test's own."""
    with cluster.namespace(request.node.name) as namespace:
        yield namespace


def sources_of(commit: str, folder: Path) -> Path:
    """The operator's sources as a commit has them; the test is skipped where the commit is not there."""
    archive = folder / "sources.tar"
    command = ["git", "archive", "--output", str(archive), commit, "thinkimg", "operator"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"there is no commit {commit} here: {done.stderr.strip()}")
    with tarfile.open(archive) as content:
        content.extractall(folder, filter="data")
    if not (folder / "operator" / "thinkimg_operator" / "main.py").exists():
        pytest.skip(f"commit {commit} has no operator")
    return folder


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources of the commit before this one."""
    return sources_of("HEAD~1", tmp_path_factory.mktemp("previous"))


@pytest.fixture(scope="module")
def before_uids(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources of the last commit whose objects have no uid in their names, and whose jobs pin nothing."""
    return sources_of("2b3a1e208b68", tmp_path_factory.mktemp("before-uids"))


@pytest.fixture
def own_cluster_only(cluster: Cluster) -> None:
    """Tests of simulated pods and of the audit log say nothing about a cluster that the user named."""
    if cluster.plane is None:
        pytest.skip("a cluster that the user named has real nodes and no audit log for us")
