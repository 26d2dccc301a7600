"""Keys: what the file holds, who is let in, and how much each may do."""

import base64
import json
import os
import stat
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from thinkimg.errors import UserError
from thinkimg.gateway import keys
from thinkimg.gateway.keys import Callers, LimitError, add_key, read_keys, redacted, remove_key


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
    monkeypatch.setattr(keys, "_CHECK_SECONDS", 0.0)
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
        caller.enter()
    with pytest.raises(LimitError) as caught:
        caller.enter()
    assert caught.value.kind == "rate_limited"
    assert caught.value.retry_after == pytest.approx(20)
    now[0] += 20.1
    caller.enter()
    with pytest.raises(LimitError):
        caller.enter()
    now[0] += 3600  # no more than a minute's worth is saved up
    for _ in range(3):
        caller.enter()
    with pytest.raises(LimitError):
        caller.enter()


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


def test_calls_at_once_are_limited(tmp_path: Path) -> None:
    key = add_key(tmp_path / "keys.json", "alice", in_flight=2)
    caller = Callers(tmp_path / "keys.json").identify(bearer(key))
    assert caller is not None
    caller.enter()
    caller.enter()
    with pytest.raises(LimitError) as caught:
        caller.enter()
    assert caught.value.kind == "overloaded"
    caller.leave()
    caller.enter()


def test_a_key_in_a_text_is_not_logged(tmp_path: Path) -> None:
    key = add_key(tmp_path / "keys.json", "alice")
    assert key not in redacted(f"/openthinkimg/{key}/x")
    assert redacted(f"/{key}/x") == f"/{key[:11]}-***/x"
