"""The manifests that are shipped load, and the demo runs on this machine without a word."""

from pathlib import Path

import pytest

from thinkimg.api.v1alpha1 import Manifest, ToolRLJob, check_local, load_manifest

MANIFESTS = Path(__file__).parents[3] / "manifests"
FILES = sorted(path for path in MANIFESTS.glob("*.yaml") if "thinkimg.dev/" in path.read_text())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_shipped_manifest_is_valid(path: Path) -> None:
    manifest = load_manifest(path)
    assert manifest.tools or manifest.jobs


@pytest.fixture(scope="module")
def demo_file() -> Manifest:
    return load_manifest(MANIFESTS / "toolrljob-cpu.yaml")


@pytest.fixture(scope="module")
def demo(demo_file: Manifest) -> ToolRLJob:
    return demo_file.job()


def test_the_demo_is_honoured_completely_on_this_machine(demo_file: Manifest) -> None:
    assert check_local(demo_file).problems == []
    assert check_local(demo_file).warnings == []


def test_the_demo_declares_the_tools_it_uses(demo_file: Manifest, demo: ToolRLJob) -> None:
    assert [tool.name for tool in demo.spec.tools] == list(demo_file.tools)


def test_the_demo_holds_the_comparison_of_the_paper(demo: ToolRLJob) -> None:
    table = demo.spec.stages[-1].evaluate
    assert table is not None
    assert sorted(table.models) == ["base", "sft", "sft-long", "text-rl", "text-sft", "v-toolrl"]


def test_text_rl_and_v_toolrl_have_the_same_budget(demo: ToolRLJob) -> None:
    text, tools = demo.spec.stage("text-rl").grpo, demo.spec.stage("v-toolrl").grpo
    assert text is not None
    assert tools is not None
    assert (text.tool_use, tools.tool_use) == ("Disabled", "Enabled")
    assert text.model_copy(update={"tool_use": "Enabled"}) == tools


def test_sft_runs_in_two_processes_and_sft_long_has_as_many_tokens_as_rl(demo: ToolRLJob) -> None:
    assert demo.spec.stage("sft").world_size == 2
    longer = demo.spec.stage("sft-long").sft
    assert longer is not None
    assert longer.max_tokens is not None
    assert longer.max_tokens.from_stage == "v-toolrl"


def test_one_example_of_every_tool_is_shipped() -> None:
    from thinkimg.api.v1alpha1.visiontool import BUILT_IN_TOOLS, CUSTOM

    shown = {tool.spec.tool for tool in load_manifest(MANIFESTS / "visiontool.yaml").tools.values()}
    assert shown == {*BUILT_IN_TOOLS, CUSTOM}
