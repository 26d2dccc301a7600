"""Which models of a table stand out, and what is subtracted from what, whatever the stages are called."""

from pathlib import Path

import pytest

from tests.support.viewer.fabricated_run import write_run
from thinkimg.evaluation.origins import origins_of_run, pairs_of, trained_models
from thinkimg.evaluation.report import collect, read_results
from thinkimg.evaluation.seeds import write_table
from thinkimg.jsonfile import write
from thinkimg.results import Origin, RunResults

SFT = Origin(type="SFT", started_from="base", tools=True)
TEXT_RL = Origin(type="GRPO", started_from="sft")
TOOL_RL = Origin(type="GRPO", started_from="sft", tools=True)


@pytest.mark.parametrize(
    ("origins", "expected"),
    [
        ({"sft": SFT, "blind": TEXT_RL, "grpo": TOOL_RL}, ["grpo"]),
        ({"sft": SFT, "blind": TEXT_RL}, ["blind"]),
        ({"sft": SFT}, ["sft"]),
        ({"grpo": TOOL_RL, "grpo-2": TOOL_RL}, ["grpo", "grpo-2"]),
    ],
)
def test_what_was_trained_with_grpo_and_tools_stands_out(origins: dict[str, Origin], expected: list[str]) -> None:
    assert trained_models(origins, ["base", *origins]) == expected


def test_two_stages_with_tools_are_compared_with_all_and_once_with_each_other() -> None:
    origins = {"sft": SFT, "first": TOOL_RL, "second": TOOL_RL}
    assert pairs_of(origins, ["base", "sft", "first", "second"]) == [
        ("first", "base"), ("first", "sft"), ("second", "base"), ("second", "sft"), ("second", "first"),
    ]  # fmt: skip


def test_of_a_run_of_the_earlier_version_the_manifest_is_asked(tmp_path: Path) -> None:
    (tmp_path / "manifest.yaml").write_text(
        """
apiVersion: thinkimg.dev/v1alpha1
kind: ToolRLJob
metadata: {name: other-names}
spec:
  model: {uri: hf://org/model}
  data: {train: {uri: "charts://?questions=4"}, test: {uri: "charts://?questions=4"}}
  stages:
    - {name: reinforce, type: GRPO, grpo: {toolUse: Disabled, maxSteps: 1}}
"""
    )
    found = origins_of_run(tmp_path, RunResults(version=0, models={}))
    assert found == {"reinforce": Origin(type="GRPO", started_from="base", tools=False)}
    assert origins_of_run(tmp_path / "nowhere", RunResults(version=0, models={})) == {}


def test_a_table_has_its_differences_whatever_the_stage_is_called(tmp_path: Path) -> None:
    models = {"base": 0.1, "cold": 0.5, "grpo": 0.9}
    runs = [write_run(tmp_path / f"seed-{n}", seed=n, questions=30, steps=10, models=models) for n in (0, 1)]
    assert write_table(runs, tmp_path / "unknown").mean.differences == []
    assert "No differences are shown" in (tmp_path / "unknown/results.md").read_text()
    for run in runs:
        known = read_results(run)
        known.stages = {"cold": SFT, "grpo": TOOL_RL}
        write(run / "results.json", known)
    table = write_table(runs, tmp_path / "table")
    assert [(found.model, found.other) for found in table.mean.differences] == [("grpo", "base"), ("grpo", "cold")]
    assert "| grpo minus cold |" in (tmp_path / "table/results.md").read_text()
    assert [row.model for row in collect(runs[0]).rows if row.stands_out] == ["grpo"]
