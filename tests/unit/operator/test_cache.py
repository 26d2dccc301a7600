"""What the cache concludes from versions, digests and managed fields."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from thinkimg_operator.cache import MANAGER, Cache
from thinkimg_operator.kinds import Key, key_of, owner_of

from thinkimg.api.pod_contract import Annotation

OURS = {"manager": MANAGER, "operation": "Apply", "time": "2026-11-23T12:00:00Z", "fieldsV1": {"f:spec": {}}}
STATUS = {"manager": "kube-controller-manager", "operation": "Update", "subresource": "status", "fieldsV1": {}}
EDIT = {"manager": "kubectl-edit", "operation": "Update", "fieldsV1": {"f:spec": {"f:replicas": {}}}}
KEY = Key("Deployment", "team", "ocr")


def deployment(version: int, *managers: dict, uid: str = "u1", owner: str = "o1", digest: str = "d1") -> dict:
    reference = {"apiVersion": "thinkimg.dev/v1alpha1", "kind": "VisionTool", "name": "ocr", "uid": owner}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": "ocr",
            "namespace": "team",
            "uid": uid,
            "resourceVersion": str(version),
            "annotations": {Annotation.APPLIED_DIGEST: digest},
            "ownerReferences": [{**reference, "controller": True}],
            "managedFields": list(managers),
        },
    }


def test_the_echo_of_our_own_write_is_old_news():
    cache = Cache()
    cache.applied(deployment(7, OURS))
    assert not cache.observe(deployment(7, OURS))
    assert not cache.observe(deployment(6, OURS))
    assert cache.observe(deployment(8, OURS, STATUS))


def test_an_object_of_the_same_name_with_another_uid_is_news_whatever_its_version():
    cache = Cache()
    cache.observe(deployment(7, uid="u1"))
    assert cache.observe(deployment(3, uid="u2"))
    assert cache.get(KEY).uid == "u2"


def test_who_writes_status_has_not_touched_what_is_ours():
    cache = Cache()
    cache.observe(deployment(7, OURS, STATUS))
    assert not cache.get(KEY).touched


def test_an_edit_counts_until_we_have_applied_again():
    cache = Cache()
    cache.applied(deployment(7, OURS))
    cache.observe(deployment(8, OURS, EDIT))
    assert cache.get(KEY).touched
    cache.applied(deployment(9, OURS, EDIT))  # they keep a field that we do not own
    assert not cache.get(KEY).touched
    cache.observe(deployment(10, OURS, EDIT, STATUS))
    assert not cache.get(KEY).touched
    cache.observe(deployment(11, OURS, {**EDIT, "time": "2026-11-23T13:00:00Z"}))
    assert cache.get(KEY).touched


def test_after_a_start_an_edited_object_counts_as_touched_and_an_untouched_one_does_not():
    cache = Cache()
    cache.observe(deployment(8, OURS, EDIT))
    assert cache.get(KEY).touched
    cache = Cache()
    cache.observe(deployment(8, OURS, STATUS))
    assert not cache.get(KEY).touched


def test_an_edit_that_the_watch_showed_before_our_answer_came_is_not_forgotten():
    cache = Cache()
    cache.observe(deployment(9, OURS, EDIT))
    cache.applied(deployment(8, OURS))
    assert cache.get(KEY).touched


def test_children_are_found_by_owner_and_leave_with_their_entry():
    cache = Cache()
    cache.observe(deployment(7))
    assert cache.children("o1") == [KEY]
    assert not cache.forget(KEY, uid="another")
    assert cache.forget(KEY, uid="u1")
    assert cache.children("o1") == []
    cache.observe(deployment(7, owner="o1"))
    cache.observe(deployment(8, owner="o2"))
    assert (cache.children("o1"), cache.children("o2")) == ([], [KEY])


def test_a_complete_list_heals_missed_deletions_but_not_what_is_newer_than_the_list():
    cache = Cache()
    cache.observe(deployment(7))
    assert cache.forget_unlisted("Service", [], 100) == []
    assert cache.forget_unlisted("Deployment", [], 6) == []
    assert cache.forget_unlisted("Deployment", [KEY], 100) == []
    assert cache.forget_unlisted("Deployment", [], 100) == [KEY]
    assert cache.get(KEY) is None


def test_a_body_is_taken_once_and_without_managed_fields():
    cache = Cache()
    body = deployment(7, OURS)
    cache.deliver(body)
    taken = cache.take(KEY)
    assert "managedFields" not in taken["metadata"]
    assert "managedFields" in body["metadata"]
    assert cache.take(KEY) is None


def test_a_body_is_not_taken_when_a_newer_one_was_seen_since():
    cache = Cache()
    cache.deliver(deployment(7, OURS))
    cache.observe(deployment(8, OURS))  # the answer to a write of ours
    assert cache.take(KEY) is None
    cache.deliver(deployment(8, OURS))
    assert cache.take(KEY) is not None


def test_a_kinds_summary_is_kept():
    cache = Cache()
    cache.summarise("Deployment", lambda body: body["metadata"]["name"].upper())
    cache.observe(deployment(7))
    assert cache.get(KEY).summary == "OCR"


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.permutations(range(1, 6)))
def test_the_order_of_events_does_not_matter(versions):
    cache = Cache()
    for version in versions:
        cache.observe(deployment(version, OURS, *([EDIT] if version == 5 else []), digest=f"d{version}"))
    seen = cache.get(KEY)
    assert (seen.resource_version, seen.digest, seen.touched) == (5, "d5", True)


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ({"controller": True}, Key("VisionTool", "team", "ocr")),
        ({"controller": False}, None),
        ({"controller": True, "kind": "ReplicaSet", "apiVersion": "apps/v1"}, None),
        ({"controller": True, "apiVersion": "thinkimg.dev/v9"}, None),
    ],
)
def test_the_owner_of_a_child_is_the_resource_of_ours_that_controls_it(reference, expected):
    body = deployment(7)
    body["metadata"]["ownerReferences"][0].update(reference)
    assert owner_of(body) == expected
    assert key_of(body) == KEY
