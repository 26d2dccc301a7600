"""Keys: what the file holds, who is let in, and how much each may do."""

import base64
import contextlib
import json
import os
import stat
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from thinkimg.errors import UserError
from thinkimg.gateway import callers as callers_module
from thinkimg.gateway.callers import Caller, Callers, LimitError
from thinkimg.gateway.config import Limits
from thinkimg.gateway.keys import add_key, read_keys, redacted, remove_key
from thinkimg.gateway.refusals import Refusal
from thinkimg.gateway.slots import Slots
from thinkimg.serving.health import Health


def bearer(key: str) -> dict[bytes, bytes]:
    return {b"authorization": f"Bearer {key}".encode()}


def test_the_file_holds_hashes_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    key = add_key(file, "alice", requests_per_minute=60)
    assert key not in file.read_text()
    assert key.split("-", 2)[2] not in file.read_text()
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
    (entry,) = read_keys(file)
    assert (entry.name, entry.requests_per_minute) == ("alice", 60)
    assert entry.id in key


def test_keys_are_told_apart(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    alice, bob = add_key(file, "alice"), add_key(file, "bob")
    callers = Callers(file)
    names = [caller.key.name for key in (alice, bob) if (caller := callers.identify(bearer(key))) and caller.key]
    assert names == ["alice", "bob"]
    assert callers.identify(bearer(alice)) is callers.identify(bearer(alice))


def test_what_is_no_key_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    key = add_key(file, "alice")
    callers = Callers(file)
    (entry,) = read_keys(file)
    wrong = [
        key[:-1],
        key[:-1] + ("A" if key[-1] != "A" else "B"),
        key + "A",
        key.upper(),
        entry.sha256,
        "",
        "ti-",
        "é",
    ]
    assert [callers.identify({b"authorization": f"Bearer {text}".encode()}) for text in wrong] == [None] * len(wrong)
    assert callers.identify({}) is None
    assert callers.identify({b"authorization": key.encode()}) is None
    assert callers.identify({b"authorization": b"Basic ?"}) is None
    assert callers.identify({b"authorization": b"Bearer \xff\xfe"}) is None


def test_a_key_may_be_the_password_of_an_address(tmp_path: Path) -> None:
    key = add_key(tmp_path / "keys.json", "alice")
    basic = base64.b64encode(f"anybody:{key}".encode())
    assert Callers(tmp_path / "keys.json").identify({b"authorization": b"Basic " + basic}) is not None


def test_a_key_expires(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    over = add_key(file, "over", expires=datetime.now(UTC) - timedelta(seconds=1))
    good = add_key(file, "good", expires=datetime.now(UTC) + timedelta(hours=1))
    callers = Callers(file)
    assert callers.identify(bearer(over)) is None
    assert callers.identify(bearer(good)) is not None


def test_the_file_is_read_again_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers_module, "_CHECK_SECONDS", 0.0)
    file = tmp_path / "keys.json"
    alice = add_key(file, "alice")
    callers = Callers(file)
    bob = add_key(file, "bob")
    assert callers.identify(bearer(bob)) is not None
    remove_key(file, "alice")
    assert callers.identify(bearer(alice)) is None
    file.write_text("garbage")
    assert callers.identify(bearer(bob)) is not None  # the last good keys stay in force
    file.unlink()
    assert callers.identify(bearer(bob)) is not None
    assert callers.identify({}) is None  # and nobody becomes anonymous


def test_a_file_without_keys_lets_nobody_in(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    add_key(file, "alice")
    remove_key(file, "alice")
    assert Callers(file).identify({}) is None


@pytest.mark.parametrize("content", ["", "[]", '{"keys": [{}]}', '{"keys": [], "more": 1}', None])
def test_a_file_that_is_none_is_refused_at_the_start(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "keys.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UserError, match="keys_file"):
        Callers(file)


def test_wrong_commands_name_what_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    add_key(file, "alice")
    with pytest.raises(UserError, match="NAME: there is a key of that name"):
        add_key(file, "alice")
    with pytest.raises(UserError, match="NAME: there is no key 'bob'"):
        remove_key(file, "bob")
    with pytest.raises(UserError, match="requests_per_minute"):
        add_key(file, "bob", requests_per_minute=0)
    assert [key.name for key in read_keys(file)] == ["alice"]


def test_the_rate_is_limited_and_recovers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    callers = Callers(tmp_path / "keys.json" if add_key(tmp_path / "keys.json", "a", requests_per_minute=3) else None)
    entry = json.loads((tmp_path / "keys.json").read_text())["keys"][0]
    caller = callers._callers[entry["id"]]
    for _ in range(3):
        caller.admit()
    with pytest.raises(LimitError) as caught:
        caller.admit()
    assert caught.value.kind == "rate_limited"
    assert caught.value.retry_after == pytest.approx(20)
    now[0] += 20.1
    caller.admit()
    with pytest.raises(LimitError):
        caller.admit()
    now[0] += 3600  # no more than a minute's worth is saved up
    for _ in range(3):
        caller.admit()
    with pytest.raises(LimitError):
        caller.admit()


def test_the_quota_begins_again_each_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = add_key(tmp_path / "keys.json", "alice", calls_per_day=5)
    caller = Callers(tmp_path / "keys.json").identify(bearer(key))
    assert caller is not None
    now = [86_400 * 20_000 + 86_300.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    caller.spend(4)
    with pytest.raises(LimitError, match="5 calls a day") as caught:
        caller.spend(2)
    assert caught.value.retry_after == pytest.approx(100)
    caller.spend(1)
    now[0] += 101
    caller.spend(5)


def test_tokens_of_models_have_a_quota_of_the_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = add_key(tmp_path / "keys.json", "alice", tokens_per_day=1000)
    caller = Callers(tmp_path / "keys.json").identify(bearer(key))
    assert caller is not None
    now = [86_400 * 20_000 + 86_300.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    caller.check_tokens()
    caller.spend_tokens(999)
    caller.check_tokens()
    caller.spend_tokens(5000)  # what is under way is finished
    with pytest.raises(LimitError, match="1000 tokens of models a day") as caught:
        caller.check_tokens()
    assert (caught.value.kind, caught.value.retry_after) == ("quota_exceeded", pytest.approx(100))
    now[0] += 101
    caller.check_tokens()


def test_a_key_without_limits_has_the_gateways_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    file = tmp_path / "keys.json"
    usual, own = add_key(file, "usual"), add_key(file, "own", requests_per_minute=1)
    callers = Callers(file, requests_per_minute=2)
    for key, most in ((usual, 2), (own, 1)):
        caller = callers.identify(bearer(key))
        assert caller is not None
        for _ in range(most):
            caller.admit()
        with pytest.raises(LimitError):
            caller.admit()
    anonymous = Callers(None, requests_per_minute=2).identify({})
    assert anonymous is not None
    for _ in range(10):
        anonymous.admit()  # without keys, all are one caller


def test_what_came_as_one_is_waited_for_as_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    key = add_key(tmp_path / "keys.json", "alice", requests_per_minute=60)
    caller = Callers(tmp_path / "keys.json").identify(bearer(key))
    assert caller is not None
    caller.admit()
    caller.charge(100)
    with pytest.raises(LimitError) as caught:
        caller.admit()
    assert caught.value.retry_after == pytest.approx(42)  # 60 - 101, and one more
    now[0] += 42.1
    caller.admit()


# ---- places ---------------------------------------------------------------------------------------------------------


def places(tmp_path: Path, names: str, health: Health | None = None, **limits: int) -> tuple[Slots, list[Caller]]:
    """Slots, and a caller for each letter; capitals have two places of their own."""
    file = tmp_path / "keys.json"
    keys = [add_key(file, name, in_flight=2 if name.isupper() else None) for name in names]
    callers = Callers(file)
    found = [callers.identify(bearer(key)) for key in keys]
    assert None not in found
    return Slots(Limits(**limits), callers, health or Health()), [caller for caller in found if caller]


def entered(slots: Slots, caller: Caller, tries: int) -> int:
    """How many of so many requests were let in."""
    count = 0
    for _ in range(tries):
        with contextlib.suppress(Refusal):
            slots.enter(caller)
            count += 1
    return count


@pytest.mark.parametrize(("names", "most"), [("a", 12), ("ab", 6), ("abc", 4), ("abcd", 3), ("abcdefgh", 3), ("Ab", 2)])
def test_a_key_has_a_share_of_the_places(tmp_path: Path, names: str, most: int) -> None:
    slots, (first, *others) = places(tmp_path, names, in_flight=12)
    assert entered(slots, first, 100) == most
    for other in others[:1]:
        assert entered(slots, other, 1) == 1, "the others have theirs"
    slots.leave(first)
    assert entered(slots, first, 2) == 1
    assert first.in_flight == most


def test_all_places_together_are_bounded(tmp_path: Path) -> None:
    slots, callers = places(tmp_path, "abcdefgh", in_flight=8)
    assert sum(entered(slots, caller, 100) for caller in callers) == 8
    assert slots.taken == 8


def test_probes_are_told_of_full_places_and_bodies_that_last(tmp_path: Path) -> None:
    now = [0.0]
    health = Health(clock=lambda: now[0])
    slots, callers = places(tmp_path, "abcdefgh", health, in_flight=8, body_bytes=1024, pending_bytes=8192)
    assert sum(entered(slots, caller, 2) for caller in callers[:4]) == 8
    now[0] = 20
    assert health.overload is None, "full, and nobody was refused"
    assert entered(slots, callers[4], 1) == 0
    for caller in callers[:4]:
        slots.hold(caller, 2048)
    with pytest.raises(Refusal):
        slots.hold(callers[5], 1)
    now[0] = 30
    assert health.overload == (
        "8 requests are under way, as many as may be; requests of 8,192 bytes are under way, as many as may be"
    )
    for caller in callers[:2]:
        slots.leave(caller)
        slots.hold(caller, -2048)
    assert health.overload is not None, "a quarter is free from below three quarters on"
    slots.leave(callers[2])
    slots.hold(callers[2], -1)
    assert health.overload is None


def test_a_share_that_is_used_up_is_no_overload(tmp_path: Path) -> None:
    now = [0.0]
    health = Health(clock=lambda: now[0])
    slots, (alice, _) = places(tmp_path, "ab", health, in_flight=12)
    assert entered(slots, alice, 100) == 6
    now[0] = 20
    assert health.overload is None


def test_calls_of_a_batch_take_a_place_each(tmp_path: Path) -> None:
    slots, (alice, bob) = places(tmp_path, "Ab", in_flight=12)
    slots.enter(alice)
    with slots.more(alice, 11) as further:
        assert (further, alice.in_flight, slots.taken) == (1, 2, 2)
        assert entered(slots, alice, 1) == 0
        with slots.more(alice, 5) as none:
            assert none == 0
    assert (alice.in_flight, slots.taken) == (1, 1)
    slots.enter(bob)
    with slots.more(bob, 11) as further:
        assert further == 5


def test_bodies_of_one_leave_room_for_anothers(tmp_path: Path) -> None:
    slots, (alice, bob) = places(tmp_path, "ab", pending_bytes=10_000, body_bytes=1024)
    slots.hold(alice, 5000)
    with pytest.raises(Refusal):
        slots.hold(alice, 1)
    slots.hold(bob, 5000)
    with pytest.raises(Refusal):
        slots.hold(None, 1)
    slots.hold(alice, -5000)
    assert alice.body_bytes == 0
    slots.hold(alice, 4000)


def test_one_body_of_the_largest_size_is_always_taken(tmp_path: Path) -> None:
    slots, (alice, *_) = places(tmp_path, "abcd", pending_bytes=10_000, body_bytes=4000)
    slots.hold(alice, 4000)
    assert alice.body_bytes == 4000


def test_a_key_is_revoked_through_a_link_and_the_link_stays(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    file, link = tmp_path / "real" / "keys.json", tmp_path / "keys.json"
    key = add_key(file, "mallory")
    link.symlink_to(file)
    bob = add_key(link, "bob")
    remove_key(link, "mallory")
    assert link.is_symlink()
    for path in (file, link):
        callers = Callers(path)
        assert callers.identify(bearer(key)) is None
        assert callers.identify(bearer(bob)) is not None
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    left = tmp_path / ".keys.json.partial-abc"
    left.write_text("half")
    add_key(tmp_path / "keys.json", "alice")
    assert not left.exists()


def test_a_key_in_a_text_is_not_logged(tmp_path: Path) -> None:
    key = add_key(tmp_path / "keys.json", "alice")
    assert key not in redacted(f"/openthinkimg/{key}/x")
    assert redacted(f"/{key}/x") == f"/{key[:11]}-***/x"
