"""A local run with a stage of every type, killed at random moments: the same end, and no saved step is done again.

`THINKIMG_KILLS=10 python -m pytest tests/training/test_killed_runs.py` kills as often as you like.
"""

import os
import random
import shutil
import signal
from pathlib import Path

import pytest

from tests.support.jobs.reached import end_of, make_base, progress_of, saved_steps, write_job
from tests.support.jobs.small_job import Started, gone, thinkimg

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
KILLS = int(os.environ.get("THINKIMG_KILLS", "2"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    manifest = write_job(folder / "job.yaml")
    make_base(folder / "run", manifest)
    shutil.copytree(folder / "run", folder / "fresh")
    ended = thinkimg("run", manifest, "--run", folder / "run", seconds=1500)
    assert ended.returncode == 0, ended.stderr
    return folder


def test_a_run_that_is_killed_again_and_again_ends_as_one_that_is_not(undisturbed: Path, tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    shutil.copytree(undisturbed / "fresh", run)
    arguments = ("run", undisturbed / "job.yaml", "--run", run)
    seed = int.from_bytes(os.urandom(4))
    random.seed(seed)
    told = []
    for moment in sorted(random.random() for _ in range(KILLS)):
        started = Started(log, *arguments)
        started.wait_until(lambda moment=moment: progress_of(run) >= moment)
        started.process.send_signal(signal.SIGKILL)  # the runner alone: its children must see to their own end
        assert started.process.wait(60) == -signal.SIGKILL
        told.append(saved_steps(run))
    assert gone(run)
    ended = thinkimg(*arguments, seconds=1500)
    assert ended.returncode == 0, ended.stderr
    assert end_of(run) == end_of(undisturbed / "run"), f"seed {seed}"
    for saved in told:
        for stage, lines in saved.items():
            final = (run / "stages" / stage / "log.jsonl").read_text().splitlines()
            assert final[: len(lines)] == lines, f"{stage} repeated saved steps, seed {seed}"
    print(f"{KILLS} kills; saved steps found after each: {[{k: len(v) for k, v in one.items()} for one in told]}")


def test_a_corrected_stage_runs_again_and_what_follows_from_it(undisturbed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(undisturbed / "run", run)
    corrected = write_job(tmp_path / "job.yaml", {"rl": {"learningRate": 2e-4}})
    times = {name: (run / "stages" / name / "done.json").stat().st_mtime_ns for name in ("cold", "sft", "rl", "table")}

    told = thinkimg("run", corrected, "--run", run, "--dry-run")
    assert told.returncode == 0, told.stderr
    fates = {line.split()[0]: line for line in told.stdout.splitlines()[1:]}
    assert all("done" in fates[name] for name in ("base", "cold", "sft"))
    assert "would run again" in fates["rl"]
    assert "grpo.learningRate: 0.0001 → 0.0002" in fates["rl"]
    assert "rl is another one" in fates["table"]

    ended = thinkimg("run", corrected, "--run", run, seconds=1500)
    assert ended.returncode == 0, ended.stderr
    assert "rl runs again" in ended.stderr
    after = {name: (run / "stages" / name / "done.json").stat().st_mtime_ns for name in times}
    assert [name for name in times if after[name] != times[name]] == ["rl", "table"]
    before, now = end_of(undisturbed / "run"), end_of(run)
    assert now["weights of sft"] == before["weights of sft"]
    assert now["weights of rl"] != before["weights of rl"]
    assert not list((run / "replaced").iterdir())
    assert "this run is finished" in thinkimg("run", corrected, "--run", run).stderr
