"""What a stage needs in a pod: attempts that keep apart, exit codes through torchrun, keys and claims."""

from pathlib import Path

import pytest

from thinkimg.errors import UserError
from thinkimg.jobs.attempt import SupersededError, begin_attempt, check_attempt, next_attempt
from thinkimg.jobs.environment import mounted_path, tool_keys
from thinkimg.jobs.runner.launch import exit_code, wants_torchrun


def test_an_attempt_takes_over_complete_checkpoints_and_what_belongs_to_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THINKIMG_ATTEMPT", "1")
    begin_attempt(tmp_path)
    for name in ("trajectories", "checkpoint-50", "checkpoint-60", "table"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint-50" / "complete.json").write_text("{}")  # the process was killed while it wrote the other
    (tmp_path / "log.jsonl").write_text("{}\n")
    begin_attempt(tmp_path)  # the same attempt, its container started anew
    assert (tmp_path / "table").exists()
    monkeypatch.setenv("THINKIMG_ATTEMPT", "2")
    begin_attempt(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["attempt", "checkpoint-50", "log.jsonl", "trajectories"]


def test_without_a_complete_checkpoint_an_attempt_begins_from_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THINKIMG_ATTEMPT", "2")
    (tmp_path / "checkpoint-60").mkdir()
    (tmp_path / "log.jsonl").write_text("{}\n")
    begin_attempt(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["attempt"]


def test_an_attempt_that_was_given_up_saves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THINKIMG_ATTEMPT", "10")
    begin_attempt(tmp_path)
    monkeypatch.setenv("THINKIMG_ATTEMPT", "9")
    with pytest.raises(SupersededError, match="attempt 9 ends without saving: attempt 10 works on"):
        check_attempt(tmp_path)
    with pytest.raises(SupersededError):
        begin_attempt(tmp_path)
    assert (tmp_path / "attempt").read_text() == "10\n"


def test_a_stage_that_is_started_by_hand_follows_the_last_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("THINKIMG_ATTEMPT", raising=False)
    begin_attempt(tmp_path)
    (tmp_path / "half.jsonl").write_text("{")
    begin_attempt(tmp_path)
    check_attempt(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["attempt"]
    assert next_attempt(tmp_path) == 3


def test_what_a_stage_goes_on_from_and_what_the_runner_writes_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THINKIMG_ATTEMPT", "2")
    for name in ("base", "sft", "removed", "servers"):
        (tmp_path / name).mkdir()
    for name in ("output.log", "identity.json", "tools.json"):
        (tmp_path / name).touch()
    begin_attempt(tmp_path, goes_on_from=["base", "sft"])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "attempt", "base", "identity.json", "output.log", "servers", "sft",
    ]  # fmt: skip


def test_keys_belong_to_the_endpoint_of_their_number() -> None:
    environment = {"THINKIMG_TOOL_KEY_1": "secret", "THINKIMG_TOOL_KEY_0": ""}
    assert tool_keys(["http://a", "http://b"], environment) == {"http://b": "secret"}


def test_a_claim_is_where_the_pod_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THINKIMG_CLAIMS", "/claims")
    assert mounted_path("pvc://models/qwen/2b", "spec.model.uri") == Path("/claims/models/qwen/2b")
    monkeypatch.delenv("THINKIMG_CLAIMS")
    with pytest.raises(UserError, match=r"spec\.model\.uri: pvc://models/qwen cannot be read here"):
        mounted_path("pvc://models/qwen", "spec.model.uri")


@pytest.mark.parametrize(
    ("first", "all_codes", "code"), [(70, [70, 1], 70), (1, [1, 2], 2), (75, [75], 75), (-9, [-9], 137), (1, [1], 1)]
)
def test_of_several_ranks_the_users_error_counts_and_else_the_first(
    first: int, all_codes: list[int], code: int
) -> None:
    assert exit_code(first, all_codes) == code


def test_ranks_do_not_start_ranks() -> None:
    assert wants_torchrun({"PET_NPROC_PER_NODE": "2"})
    assert not wants_torchrun({"PET_NPROC_PER_NODE": "2", "RANK": "0"})
    assert not wants_torchrun({})
