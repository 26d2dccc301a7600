"""A run that the version before files had kinds began, and that was interrupted between its stages, goes on.

`earlier_run/` is what that version left: `base` and `first` are done, `second` has not begun.
"""

import json
import shutil
from pathlib import Path

import pytest

from tests.support.jobs.small_job import thinkimg
from thinkimg.jobs.layout import Run
from thinkimg.jsonfile import read
from thinkimg.results import RunMarker, RunResults, SynthesizeDone
from thinkimg.trajectory import read_trajectories

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def test_it_goes_on_where_it_was_and_keeps_what_was_done(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    shutil.copytree(Path(__file__).parent / "earlier_run", run.path)
    manifest = tmp_path / "job.yaml"
    manifest.write_bytes(run.manifest.read_bytes())
    before = (run.stage("first") / "done.json").read_bytes()

    ended = thinkimg("run", manifest, "--run", run.path)

    assert ended.returncode == 0, ended.stderr
    assert "going on with second: 2 stages are done" in ended.stderr
    assert (run.stage("first") / "done.json").read_bytes() == before
    first, second = run.done("first"), run.done("second")
    assert isinstance(first, SynthesizeDone)
    assert isinstance(second, SynthesizeDone)
    assert (first.version, second.version, first.kept, second.kept) == (0, 1, 4, 4)
    for name in ("first", "second"):
        found = list(read_trajectories(run.stage(name) / "trajectories" / "cold-start.jsonl"))
        assert len(found) == 4
        assert all(one.images["img_1"].data for one in found)
    assert read(run.marker, RunMarker).version == 1
    results = read(run.results, RunResults)
    assert list(results.stages) == ["first", "second"]
    assert results.seconds["first"] == json.loads(before)["seconds"]


def test_another_job_is_refused_in_its_folder(tmp_path: Path) -> None:
    shutil.copytree(Path(__file__).parent / "earlier_run", tmp_path / "run")
    manifest = tmp_path / "job.yaml"
    manifest.write_text((tmp_path / "run/manifest.yaml").read_text().replace("two-syntheses", "others"))
    refused = thinkimg("run", manifest, "--run", tmp_path / "run")
    assert refused.returncode == 2
    assert "this folder holds a run of another job, two-syntheses" in refused.stderr
