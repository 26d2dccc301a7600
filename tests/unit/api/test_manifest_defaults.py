"""What a stage has when the file does not say it."""

from __future__ import annotations

import pytest

from tests.support.api.manifest_examples import JOB, changed, setting
from thinkimg.api.v1alpha1 import ToolRLJob, parse_manifest


def job(*changes: object) -> ToolRLJob:
    return parse_manifest(changed(JOB, *changes)).job()  # type: ignore[arg-type]


def test_limits_of_stages_are_those_of_the_agent() -> None:
    spec = job(setting("spec.agent", {"maxRounds": 7, "maxTokensPerTurn": 16})).spec
    synthesize, grpo = spec.stage("cold").synthesize, spec.stage("rl").grpo
    assert synthesize is not None
    assert grpo is not None
    assert (synthesize.max_rounds, grpo.max_rounds, grpo.max_tokens_per_turn) == (7, 7, 16)


def test_a_limit_that_a_stage_says_itself_stays() -> None:
    spec = job(setting("spec.agent", {"maxRounds": 7}), setting("spec.stages.2.grpo.maxRounds", 2)).spec
    grpo = spec.stage("rl").grpo
    assert grpo is not None
    assert grpo.max_rounds == 2


def test_sft_without_a_length_takes_one_epoch() -> None:
    sft = job(setting("spec.stages.1.sft", {})).spec.stage("sft").sft
    assert sft is not None
    assert (sft.epochs, sft.max_steps, sft.max_seconds) == (1.0, None, None)


def test_sft_learns_from_the_nearest_earlier_synthesis() -> None:
    spec = job().spec
    found = spec.data_stage(spec.stage("sft"))
    assert found is not None
    assert found.name == "cold"


def test_sft_without_a_synthesis_learns_from_the_training_data() -> None:
    stages = [{"name": "sft", "type": "SFT", "sft": {}}]
    spec = job(setting("spec.stages", stages), setting("spec.data.train.uri", "hf://org/trajectories")).spec
    assert spec.data_stage(spec.stage("sft")) is None


def test_stages_start_from_the_base_model() -> None:
    assert [stage.from_ for stage in job().spec.stages] == ["base", "base", "sft", "base"]


def test_rewards_are_accuracy_and_a_little_for_the_format() -> None:
    grpo = job().spec.stage("rl").grpo
    assert grpo is not None
    assert [(reward.name, reward.weight) for reward in grpo.rewards] == [("accuracy", 1.0), ("format", 0.1)]


def test_python_code_writes_snake_case() -> None:
    """Only files must be camelCase; code that builds a resource follows Python."""
    from thinkimg.api.v1alpha1.visiontool import VisionToolSpec

    assert VisionToolSpec(tool="OCR", call_timeout_seconds=5).model_dump()["callTimeoutSeconds"] == 5


@pytest.mark.parametrize(
    "uri",
    [
        "charts://",
        "charts://?questions=1200&difficulty=1",
        "hf://org/name",
        "hf://org/name?config=main&limit=500",
        "pvc://claim/a/b.jsonl",
        "data/train.jsonl",
        "train.jsonl",
    ],
)
def test_data_may_be_at(uri: str) -> None:
    assert job(setting("spec.data.test.uri", uri)).spec.data.test.uri == uri  # type: ignore[union-attr]


@pytest.mark.parametrize("uri", ["preset://tiny", "hf://Qwen/Qwen2-VL-2B-Instruct", "hf://gpt2", "pvc://models/a/b"])
def test_a_model_may_be_at(uri: str) -> None:
    assert job(setting("spec.model.uri", uri)).spec.model.uri == uri
