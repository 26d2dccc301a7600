"""Every field of the stages' blocks changes what the stage makes: TRL's configuration, the rollouts, the evaluation.

The fields are found by walking the models, so that a new one without a case fails here. A field that rightly changes
nothing stands with its reason in docs/reference/manifest.md.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydantic.fields import FieldInfo

from tests.support import REPOSITORY
from tests.support.jobs.observed_stage import observe
from thinkimg.api import GRPO as GRPO_BLOCK
from thinkimg.api import Filters, Lora, ToolRLJob
from thinkimg.api.v1alpha1.fields import declared_fields
from thinkimg.jobs.stages.context import Context
from thinkimg.synthesis.synthesize import refuse
from thinkimg.training.adapters import lora_config
from thinkimg.training.grpo.groups import Rollouts

pytestmark = pytest.mark.slow

STAGE = "spec.stages[]."
BLOCKS = ("synthesize", "sft", "grpo", "evaluate")
PAGE = REPOSITORY / "docs" / "reference" / "manifest.md"
JUDGE = {"baseUrl": "http://judge/v1", "model": "judge"}
PLANNER = {"baseUrl": "http://planner/v1", "name": "planner", "secretRef": {"name": "keys", "key": "first"}}


@dataclass(frozen=True)
class Change:
    """Settings of a block with another value of a field, and those without it. `seen` names parts of what is observed
    each of which must differ, where a field has several effects; otherwise any part may."""

    to: Mapping[str, Any]
    of: Mapping[str, Any] = field(default_factory=dict)
    seen: tuple[str, ...] = ()


def judged(**changes: Any) -> dict[str, Any]:
    return {"rewards": [{"name": "judge", "judge": {**JUDGE, **changes}}]}


def planned(**changes: Any) -> dict[str, Any]:
    return {"planner": {"type": "Model", "model": {**PLANNER, **changes}}}


SYNTHESIZE = {
    "trajectories": Change({"trajectories": 5}),
    "planner": Change(planned()),
    "planner.type": Change(planned()),
    "planner.chains": Change({"planner": {"chains": {"ocr": 1.0}}}),
    "planner.model": Change(planned(), planned(name="other")),
    "planner.model.baseUrl": Change(planned(baseUrl="http://elsewhere/v1"), planned()),
    "planner.model.name": Change(planned(name="larger"), planned()),
    "planner.model.secretRef": Change(planned(secretRef=None), planned()),
    "planner.model.secretRef.name": Change(planned(secretRef={"name": "others", "key": "first"}), planned()),
    "planner.model.secretRef.key": Change(planned(secretRef={"name": "keys", "key": "second"}), planned()),
    "filters": Change({"filters": {"maxToolErrors": 9}}),
    "filters.requireCorrect": Change(
        {"filters": {"requireCorrect": False}, **planned(name="sometimes-wrong")}, planned(name="sometimes-wrong")
    ),
    "filters.maxToolErrors": Change({"filters": {"maxToolErrors": 9}}),
    "filters.minToolCalls": Change({"filters": {"minToolCalls": 1}}),
    "filters.refuseRepeats": Change(
        {"filters": {"maxToolErrors": 9, "refuseRepeats": True}, **planned(name="repeats")},
        {"filters": {"maxToolErrors": 9}, **planned(name="repeats")},
    ),
    "maxRounds": Change({"maxRounds": 1}),
    "concurrency": Change({"concurrency": 1}),
    "toolUse": Change({"toolUse": "Disabled"}),
}
GATE = {"gate": {"minSampledAccuracy": 1.0}}
SFT = {
    "toolUse": Change({"toolUse": "Disabled"}),
    "epochs": Change({"epochs": 3.0}),
    "maxSteps": Change({"maxSteps": 7}),
    "maxTokens": Change({"maxTokens": {"fromStage": "before"}}),
    "maxTokens.fromStage": Change({"maxTokens": {"fromStage": "earlier"}}, {"maxTokens": {"fromStage": "before"}}),
    "maxSeconds": Change({"maxSeconds": {"fromStage": "cold"}}),
    "maxSeconds.fromStage": Change({"maxSeconds": {"fromStage": "later"}}, {"maxSeconds": {"fromStage": "cold"}}),
    "batchSize": Change({"batchSize": 16}),
    "learningRate": Change({"learningRate": 3e-4}),
    "lora": Change({"lora": {}}),
    "lora.rank": Change({"lora": {"rank": 4}}, {"lora": {}}),
    "lora.alpha": Change({"lora": {"alpha": 8.0}}, {"lora": {}}),
    "lora.dropout": Change({"lora": {"dropout": 0.1}}, {"lora": {}}),
    "lora.targetModules": Change({"lora": {"targetModules": ["q_proj"]}}, {"lora": {}}),
    "lengthGrouping": Change({"lengthGrouping": True}),
    "zeroStage": Change({"zeroStage": 2}),
    "gate": Change(GATE),
    "gate.minSampledAccuracy": Change({"gate": {"minSampledAccuracy": 0.0}}, GATE),
    "gate.questions": Change({"gate": {"minSampledAccuracy": 1.0, "questions": 2}}, GATE),
    "gate.extendOnce": Change({"gate": {"minSampledAccuracy": 1.0, "extendOnce": False}}, GATE),
    "dataFrom": Change({"dataFrom": "cold"}),
    "seed": Change({"seed": 5}),
    "args": Change({"args": {"weight_decay": 0.1}}),
}
FLAT = {"rewards": [{"name": "tests.support.jobs.observed_stage:flat"}]}
GRPO = {
    "toolUse": Change({"toolUse": "Disabled"}),
    "maxSteps": Change({"maxSteps": 7}),
    "promptsPerStep": Change({"promptsPerStep": 2}),
    "numGenerations": Change({"numGenerations": 2}),
    "learningRate": Change({"learningRate": 1e-4}),
    "temperature": Change({"temperature": 0.5}, seen=("sampling", "trl")),
    "beta": Change({"beta": 0.04}),
    "lossType": Change({"lossType": "grpo"}),
    "importanceCorrection": Change({"importanceCorrection": {}}),
    "importanceCorrection.mode": Change({"importanceCorrection": {"mode": "TokenMask"}}, {"importanceCorrection": {}}),
    "importanceCorrection.clipMin": Change({"importanceCorrection": {"clipMin": 0.5}}, {"importanceCorrection": {}}),
    "importanceCorrection.clipMax": Change({"importanceCorrection": {"clipMax": 5.0}}, {"importanceCorrection": {}}),
    "lora": Change({"lora": {}}),
    "lora.rank": Change({"lora": {"rank": 4}}, {"lora": {}}),
    "lora.alpha": Change({"lora": {"alpha": 8.0}}, {"lora": {}}),
    "lora.targetModules": Change({"lora": {"targetModules": ["q_proj"]}}, {"lora": {}}),
    "zeroStage": Change({"zeroStage": 2}),
    "maxRounds": Change({"maxRounds": 2}, seen=("groups", "trl")),
    "maxTokensPerTurn": Change({"maxTokensPerTurn": 64}, seen=("sampling", "trl")),
    "maxTokens": Change({"maxTokens": 100}, seen=("sampling",)),
    "maxSecondsPerTrajectory": Change({"maxSecondsPerTrajectory": 1e-6}, {"concurrency": 1}),
    "rewards": Change({"rewards": [{"name": "format"}]}),
    "rewards[].name": Change({"rewards": [{"name": "tests.support.jobs.observed_stage:thrift"}]}),
    "rewards[].weight": Change(
        {"rewards": [{"name": "format", "weight": 2.0}]}, {"rewards": [{"name": "format"}]}, ("groups", "weights")
    ),
    "rewards[].targetRate": Change(
        {"rewards": [{"name": "tool-use", "targetRate": 0.9}]}, {"rewards": [{"name": "tool-use"}]}
    ),
    "rewards[].maxTokens": Change(
        {"rewards": [{"name": "length", "maxTokens": 20}]}, {"rewards": [{"name": "length", "maxTokens": 1000}]}
    ),
    "rewards[].judge": Change(judged(), judged(model="other")),
    "rewards[].judge.baseUrl": Change(judged(baseUrl="http://elsewhere/v1"), judged()),
    "rewards[].judge.model": Change(judged(model="larger"), judged()),
    "rewards[].judge.apiKeyVariable": Change(judged(apiKeyVariable="JUDGE_KEY"), judged()),
    "rewards[].judge.criteria": Change(judged(criteria="Is it short?"), judged()),
    "tokensPerPass": Change({"tokensPerPass": 64}),
    "microBatch": Change({"microBatch": 4}),
    "concurrency": Change({"concurrency": 1}),
    "toolConcurrency": Change({"toolConcurrency": 1}),
    "resampleLimit": Change({"resampleLimit": 0}),
    "refill": Change({"refill": True}, FLAT),
    "refillGroups": Change({"refillGroups": 1}, {"refill": True, **FLAT}),
    "forkGroups": Change({"forkGroups": 2}),
    "maskTruncated": Change({"maskTruncated": True}, {"maxRounds": 1}),
    "args": Change({"args": {"epsilon": 0.3}}),
}
MODELS = {"models": ["before"]}
EVALUATE = {
    "models": Change({"models": ["before", "base"]}),
    "split": Change({"split": "validation"}),
    "questions": Change({"questions": 2}),
    "sampled": Change({"sampled": False}),
    "temperature": Change({"temperature": 0.5}),
    "samples": Change({"samples": 2}, seen=("files", "done")),
    "control": Change({"control": "grey"}, seen=("files", "done")),
    "controlScope": Change({"control": "grey", "controlScope": "all"}, {"control": "grey"}, ("files", "done")),
    "bootstrap": Change(
        {"bootstrap": 100}, {"models": ["before", "base"], "questions": 13}
    ),  # intervals of a difference
    "concurrency": Change({"concurrency": 1}),
}
ALWAYS = {"synthesize": {"trajectories": 12}, "sft": {}, "grpo": {"promptsPerStep": 4}, "evaluate": MODELS}
"""What every observed block says: small, or needed."""
CASES = {
    f"{block}.{name}": change
    for block, changes in (("synthesize", SYNTHESIZE), ("sft", SFT), ("grpo", GRPO), ("evaluate", EVALUATE))
    for name, change in changes.items()
}


def fields() -> Iterator[str]:
    """Every field of the stages' blocks, `grpo.rewards[].judge.model` and all."""
    for declared in declared_fields(ToolRLJob):
        path = declared.path.removeprefix(STAGE)
        if path != declared.path and path.partition(".")[0] in BLOCKS and "." in path:
            yield path


def exceptions() -> dict[str, str]:
    """Fields that change nothing, with the reasons, as the reference page has them."""
    section = PAGE.read_text().partition("## Fields that change nothing in a stage\n")[2].partition("\n## ")[0]
    return dict(re.findall(r"^\| `stages\[\]\.([^`]+)` \| (.+) \|$", section, re.MULTILINE))


def settings(path: str, changed: bool) -> dict[str, Any]:
    block, change = path.partition(".")[0], CASES[path]
    return {**ALWAYS[block], **change.of, **(change.to if changed else {})}


def observed(path: str, changed: bool, folder: Path) -> dict[str, Any]:
    return observe(path.partition(".")[0], settings(path, changed), folder)


def unaccounted(known: set[str]) -> set[str]:
    return known - set(CASES) - set(exceptions())


def check(path: str, folder: Path) -> None:
    """Raises `AssertionError` where another value of the field is not seen."""
    without = observed(path, False, folder / "without")
    assert "refused" not in without or "gate" in path, without["refused"]
    another = observed(path, True, folder / "with")
    assert another != without
    assert [part for part in CASES[path].seen if another[part] == without[part]] == []


def test_every_field_has_a_case_or_a_reason_why_it_changes_nothing() -> None:
    known, reasons = set(fields()), exceptions()
    assert unaccounted(known) == set(), "neither a case here nor a reason on the reference page"
    assert (set(CASES) | set(reasons)) - known == set(), "no such field"
    assert set(CASES) & set(reasons) == set()
    assert all(reason.endswith(".") for reason in reasons.values())


@pytest.mark.parametrize("path", CASES)
def test_another_value_is_seen_in_what_the_stage_makes(path: str, tmp_path: Path) -> None:
    check(path, tmp_path)


def drop_correction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thinkimg.training.grpo.config._corrected", lambda correction: {})


def drop_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thinkimg.training.sft.lora_config", lambda model, lora: lora_config(model, lora and Lora()))


def drop_filters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thinkimg.synthesis.synthesize.refuse", lambda _, trajectory: refuse(Filters(), trajectory))


def drop_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = Context.tasks
    monkeypatch.setattr(Context, "tasks", lambda self, split, count=None: tasks(self, split))


def drop_refill_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Rollouts.__init__

    def forgetful(self: Rollouts, engine: Any, episodes: Any, spec: Any, *others: Any) -> None:
        made(self, engine, episodes, spec.model_copy(update={"refill_groups": 4}), *others)

    monkeypatch.setattr(Rollouts, "__init__", forgetful)


@pytest.mark.parametrize(
    ("path", "plant"),
    [
        ("grpo.importanceCorrection.mode", drop_correction),
        ("grpo.refillGroups", drop_refill_groups),
        ("sft.lora.rank", drop_rank),
        ("synthesize.filters.minToolCalls", drop_filters),
        ("evaluate.questions", drop_questions),
    ],
)
def test_a_field_that_is_dropped_on_its_way_is_noticed(
    path: str, plant: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(path, tmp_path / "as it is")
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        check(path, tmp_path / "planted")


def test_a_new_field_without_a_case_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wider(Lora):
        """With a field that nobody has thought of."""

        novel: int = 0
        """Nothing."""

    monkeypatch.setitem(GRPO_BLOCK.model_fields, "lora", FieldInfo.from_annotation(Wider))
    assert unaccounted(set(fields())) == {"grpo.lora.novel"}


@pytest.mark.parametrize("block", BLOCKS)
def test_the_same_block_is_observed_alike(block: str, tmp_path: Path) -> None:
    """Without this, chance could pass for a change."""
    first, again = (observe(block, ALWAYS[block], tmp_path / name) for name in ("first", "again"))
    assert first == again
