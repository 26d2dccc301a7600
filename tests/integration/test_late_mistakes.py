"""What would be found late is refused before the first stage, with its field and what would be right."""

import importlib.util
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.jobs.late_mistakes import MISTAKES, Late, write_job
from tests.support.jobs.small_job import thinkimg
from tests.support.models.endpoint import refusal, serve
from thinkimg.api import ManifestError, Problem
from thinkimg.jobs.preflight.check import check
from thinkimg.jobs.preflight.findings import Finding, Plan
from thinkimg.jobs.runner.run import prepare

pytestmark = pytest.mark.slow

BY_NAME = {late.name: late for late in MISTAKES}


@pytest.fixture(scope="module")
def endpoints() -> Iterator[dict[str, str]]:
    with serve(refusal(401, "no")) as refuses, serve(refusal(404, "no such model")) as unknown:
        yield {"http://refuses/v1": refuses.url, "http://unknown/v1": unknown.url}


@pytest.fixture(autouse=True)
def _this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Without a network; the user's modules are where the run is started."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("my_rewards", None)


def change_machine(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "no deepspeed":
        find = importlib.util.find_spec

        def found(wanted: str, *rest: Any) -> Any:
            return None if wanted == "deepspeed" else find(wanted, *rest)

        monkeypatch.setattr(importlib.util, "find_spec", found)
    if name == "full disk":
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))


def found_in(manifest: Path) -> list[Finding]:
    """What `thinkimg run` finds before its first stage."""
    try:
        job = prepare(manifest, manifest.parent / "run")
    except ManifestError as error:
        return [Finding(problem) for problem in error.problems]
    return check(Plan(job.manifest, job.job, job.run.path, [stage.name for stage in job.job.spec.stages]))


def as_text(problem: Problem) -> str:
    return f"{problem.path}: {problem.message}. {problem.remedy}"


def test_the_job_is_sound_without_a_mistake(tmp_path: Path) -> None:
    assert found_in(write_job(tmp_path)) == []


@pytest.mark.parametrize("late", MISTAKES, ids=lambda late: late.name)
def test_a_late_mistake_is_refused_before_the_first_stage(
    late: Late, tmp_path: Path, endpoints: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = write_job(tmp_path, late, endpoints=endpoints)
    change_machine(late.machine, monkeypatch)
    (finding,) = found_in(manifest)
    text = as_text(finding.problem)
    assert finding.problem.path.startswith(late.field), text
    place = 0
    for part in late.says:
        assert part in text[place:], text
        place = text.index(part, place)
    assert finding.problem.remedy, text
    assert finding.problem.line is not None, text
    assert finding.passing == late.passing, text


def command_refuses(tmp_path: Path, *mistakes: str) -> Any:
    manifest = write_job(tmp_path, *(BY_NAME[name] for name in mistakes))
    done = thinkimg("run", manifest, "--run", tmp_path / "run", seconds=300)
    assert not (tmp_path / "run" / "stages").exists(), "nothing ran"
    for name in mistakes:
        assert BY_NAME[name].field in done.stderr, done.stderr
    return done


def test_the_command_says_all_mistakes_at_once_and_ends_with_2(tmp_path: Path) -> None:
    done = command_refuses(
        tmp_path, "a schedule of SFT", "adapters of nothing", "reward my_rewards:nosuch", "a strip in the test data"
    )
    assert (done.returncode, "4 problems" in done.stderr) == (2, True), done.stderr


def test_the_command_ends_with_70_where_only_an_endpoint_is_down(tmp_path: Path) -> None:
    done = command_refuses(tmp_path, "a planner that nobody serves")
    assert done.returncode == 70, done.stderr
