"""What can only be said after all other tests of this folder: nothing that ships is unused, nothing used is missing.

It runs last, and only when the whole folder does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from thinkimg_operator.toolrljob import reasons as toolrljob
from thinkimg_operator.visiontool import status as visiontool

from tests.support.cluster.shipped_access import rules
from tests.support.cluster.testcluster import Cluster
from tests.support.cluster.witness import used_verbs, verbs_of

HERE = Path(__file__).parent

UNUSED_VERBS = {
    # `blockOwnerDeletion` of children is checked inside admission, which the audit log does not show.
    ("thinkimg.dev", "visiontools/finalizers", "update"),
    ("thinkimg.dev", "toolrljobs/finalizers", "update"),
}
"""Rights that no request of the tests shows, and why they are needed."""


@pytest.fixture(autouse=True, scope="module")
def whole_run(request: pytest.FixtureRequest, cluster: Cluster) -> None:
    selected = request.config.option
    partly = selected.keyword or selected.markexpr or any("::" in argument for argument in request.config.args)
    ran = {item.path for item in request.session.items}
    if partly or not set(HERE.glob("test_*.py")) <= ran or cluster.witness is None:
        pytest.skip("only after all tests of tests/cluster, on a cluster of their own")
    if request.session.testsfailed:
        pytest.skip("after a failure, some of what is looked for was not reached")


def test_the_shipped_role_allows_what_is_used_and_nothing_else(cluster: Cluster) -> None:
    shipped = verbs_of(rules("rules.yaml", "leader-rules.yaml", "monitoring-rules.yaml"))
    used = used_verbs(cluster.audit())
    assert used - shipped == set(), "used, and not in the chart's rules"
    assert shipped - used == UNUSED_VERBS, "in the chart's rules, and used by nothing (or no longer unused)"


def test_secrets_are_neither_read_nor_allowed(cluster: Cluster) -> None:
    shipped = verbs_of(rules("rules.yaml", "leader-rules.yaml", "monitoring-rules.yaml"))
    for verbs in (shipped, used_verbs(cluster.audit())):
        assert [verb for verb in verbs if verb[1].startswith("secrets")] == []


@pytest.mark.parametrize(("kind", "said"), [("VisionTool", visiontool), ("ToolRLJob", toolrljob)])
def test_every_reason_and_every_event_was_reached_and_is_declared(cluster: Cluster, kind: str, said: Any) -> None:
    assert cluster.witness is not None
    reached = {(type_, reason) for name, type_, reason in cluster.witness.reasons if name == kind}
    assert reached == {(type_, reason) for type_, reasons in said.REASONS.items() for reason in reasons}
    assert {reason for name, reason in cluster.witness.events if name == kind} == set(said.EVENTS)
