"""Conditions: same input, same output; times move with the status only."""

from datetime import UTC, datetime, timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from thinkimg_operator.conditions import (
    MAX_MESSAGE,
    Condition,
    find_condition,
    is_true,
    merge_conditions,
    parse_timestamp,
    timestamp,
)

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
LATER = NOON + timedelta(minutes=5)
QUICK = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])

says = st.tuples(st.sampled_from(["True", "False", "Unknown"]), st.sampled_from(["Valid", "Invalid"]))
conditions = st.dictionaries(st.sampled_from(["Accepted", "Available", "Progressing"]), says).map(
    lambda found: [Condition(type_, status, reason, "Why.") for type_, (status, reason) in found.items()]
)


@QUICK
@given(conditions, conditions)
def test_a_second_merge_of_the_same_changes_nothing(before, current):
    previous = merge_conditions([], before, 1, NOON)
    once = merge_conditions(previous, current, 2, LATER)
    assert merge_conditions(once, current, 2, LATER + timedelta(hours=1)) == once


@QUICK
@given(conditions, conditions)
def test_the_time_moves_exactly_with_the_status(before, current):
    previous = {condition["type"]: condition for condition in merge_conditions([], before, 1, NOON)}
    for condition in merge_conditions(previous.values(), current, 2, LATER):
        old = previous.get(condition["type"])
        moved = condition["lastTransitionTime"] == timestamp(LATER)
        assert moved == (old is None or old["status"] != condition["status"])


@QUICK
@given(conditions, conditions)
def test_each_type_is_there_once_and_none_is_lost(before, current):
    merged = merge_conditions(merge_conditions([], before, 1, NOON), current, 2, LATER)
    types = [condition["type"] for condition in merged]
    assert sorted(types) == sorted({condition.type for condition in (*before, *current)})


def test_conditions_are_found_in_objects_of_any_kind():
    deployment = {"status": {"conditions": [{"type": "Available", "status": "True"}]}}
    assert is_true(deployment, "Available")
    assert not is_true(deployment, "Progressing")
    assert find_condition({"status": None}, "Available") is None
    assert find_condition(None, "Available") is None


def test_long_messages_are_cut():
    for letter in ("x", "ä", "字"):  # the API server counts bytes
        (condition,) = merge_conditions([], [Condition("Accepted", "False", "Invalid", letter * 5000)], 1, NOON)
        assert MAX_MESSAGE - 3 < len(condition["message"].encode()) <= MAX_MESSAGE


def test_times_survive_the_round_trip_with_and_without_fractions():
    assert parse_timestamp(timestamp(NOON)) == NOON
    assert parse_timestamp("2026-11-23T12:00:00.000000Z") == NOON
    assert parse_timestamp("2026-11-23T12:00:00Z") == NOON
