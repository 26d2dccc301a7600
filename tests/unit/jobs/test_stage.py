"""Parts of the stages that need no training."""

import tempfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from thinkimg.agent.formats import get_format
from thinkimg.api.v1alpha1 import parse_manifest
from thinkimg.errors import UserError
from thinkimg.evaluation.scorers import RuleScorer
from thinkimg.jobs.layout import Run
from thinkimg.jobs.stages import stage
from thinkimg.jobs.stages.context import Context
from thinkimg.jobs.stages.sft import DeclaredTools, cold_start
from thinkimg.jobs.stages.stage import _link_or_copy
from thinkimg.synthesis.planner import ScriptedPlanner
from thinkimg.tools.registry import find_tool
from thinkimg.trajectory import Trajectory, read_trajectories, write_trajectories


def context(tmp_path: Path) -> Context:
    job = {
        "apiVersion": "thinkimg.dev/v1alpha1",
        "kind": "ToolRLJob",
        "metadata": {"name": "job"},
        "spec": {
            "model": {"uri": "preset://tiny"},
            "data": {"train": {"uri": "mine.jsonl"}},
            "stages": [{"name": "sft", "type": "SFT", "sft": {}}],
        },
    }
    return Context(parse_manifest(yaml.safe_dump(job)).job(), Run(tmp_path / "run"), data_folder=tmp_path)


def test_sft_learns_the_users_own_trajectories_where_no_stage_makes_any(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"spec\.data\.train\.uri"):
        cold_start(context(tmp_path), "sft")
    write_trajectories([Trajectory(question="What?", status="answered")], tmp_path / "mine.jsonl")
    assert [trajectory.question for trajectory in cold_start(context(tmp_path), "sft")[0]] == ["What?"]


def test_a_tool_that_only_its_server_knows_is_asked_for_or_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was left out of SFT's prompt without a word."""
    served = {"OCR": find_tool("OCR").schema, "Mine": find_tool("Crop").schema}
    job = replace(context(tmp_path), tools=("OCR", "Custom"))
    with pytest.raises(UserError, match=r"spec\.tools: nobody here knows what Custom can do"):
        DeclaredTools(job)
    monkeypatch.setattr(Context, "described_client", lambda _: SimpleNamespace(schemas=served))
    assert DeclaredTools(replace(job, endpoints=("http://tools",))).schemas == served
    assert set(DeclaredTools(replace(job, tools=("OCR",))).schemas) == {"OCR"}


@pytest.mark.parametrize("elsewhere", ["/dev/shm", None], ids=["another file system", "the same"])
def test_a_file_of_the_cache_reaches_the_run_wherever_that_is(tmp_path: Path, elsewhere: str | None) -> None:
    with tempfile.TemporaryDirectory(dir=elsewhere if elsewhere and Path(elsewhere).is_dir() else tmp_path) as cache:
        file = Path(cache, "weights")
        file.write_bytes(b"new")
        target = tmp_path / "weights"
        target.write_bytes(b"old")
        _link_or_copy(file, target)
    assert target.read_bytes() == b"new"


class Scripted(ScriptedPlanner):
    asked = 0

    async def reply(self, *arguments: Any, **options: Any) -> Any:
        Scripted.asked += 1
        return await super().reply(*arguments, **options)


def test_a_synthesis_whose_filters_have_changed_filters_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trajectories that it dropped before may be kept now, and no planner is asked again."""
    spec: dict[str, Any] = {
        "model": {"uri": "preset://tiny"},
        "data": {"train": {"uri": "charts://?questions=4"}},
        "stages": [{"name": "cold", "type": "Synthesize", "synthesize": {"trajectories": 4, "toolUse": "Disabled"}}],
    }
    job = {"apiVersion": "thinkimg.dev/v1alpha1", "kind": "ToolRLJob", "metadata": {"name": "job"}, "spec": spec}
    here = Context(parse_manifest(yaml.safe_dump(job)).job(), Run(tmp_path / "run"), data_folder=tmp_path)
    monkeypatch.setattr(stage, "_planner", lambda context, name: Scripted(get_format("openthinkimg"), {"none": 1.0}))
    folder = here.run.stage("cold") / "trajectories"

    def kept(takes: tuple[str, ...]) -> int:
        def is_taken(answer: str, reference: str, trajectory: Trajectory) -> float:
            return float(trajectory.meta["task"] in takes)

        monkeypatch.setattr(stage, "scorer_of", lambda _: RuleScorer("own", is_taken, version=str(takes)))
        done = stage._synthesize(here, "cold")
        assert sorted(path.name for path in folder.glob("*.jsonl*")) == ["cold-start.jsonl", "dropped.jsonl"]
        names = [one.meta["task"] for one in read_trajectories(folder / "cold-start.jsonl")]
        assert set(names) == set(takes)
        assert done.kept + sum(done.dropped.values()) == 4
        assert len(list(read_trajectories(folder / "dropped.jsonl"))) == 4 - done.kept
        return done.kept

    names = [task.id for task in here.tasks("train")]
    assert kept((names[0],)) == 1
    asked = Scripted.asked
    assert kept(tuple(names[1:])) == 3
    assert kept((names[0], names[2])) == 2
    assert Scripted.asked == asked
