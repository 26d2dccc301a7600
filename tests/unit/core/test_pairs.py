"""KEY=VALUE means the same on every command line as `key: value` in a manifest."""

import re
from pathlib import Path
from typing import Any, cast

import pytest

from tests.support import REPOSITORY
from thinkimg.cli.tool_call import Call, run
from thinkimg.cluster.submit import apply_manifest
from thinkimg.errors import UserError
from thinkimg.openthinkimg.evaluation import ModelArguments
from thinkimg.pairs import read_pairs, split_pairs
from thinkimg.serving.config import read_config


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", False),
        ("yes", True),
        ("true", True),
        ("y", "y"),
        ("1e3", 1000.0),
        ("1e-5", 1e-5),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("7", 7),
        ("-0.5", -0.5),
        ("010", "010"),
        ("1_000", "1_000"),
        ("null", None),
        ("~", None),
        ("'no'", "no"),
        ('"1"', "1"),
        ('"two\\nlines"', "two\nlines"),
        ("[1, no, 12:30]", [1, False, "12:30"]),
        ('{"a":[1,2], b: x}', {"a": [1, 2], "b": "x"}),
        ("http://host:8000/v1", "http://host:8000/v1"),
        ("x=y", "x=y"),
        ("Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen2.5-VL-3B-Instruct"),
    ],
)
def test_a_value_is_what_a_manifest_has(text: str, value: object) -> None:
    from thinkimg.api.v1alpha1.yamlsource import read_documents

    assert read_pairs([f"a={text}"], "--option") == {"a": value}
    assert read_documents(f"a: {text}", "x")[0].value == {"a": value}


@pytest.mark.parametrize("text", ["#ff0000", "What is: ten?", "@home", "`x`", "- a", "*", "5 # of it", "=", "<<", "?"])
def test_what_a_manifest_takes_for_a_comment_or_a_mapping_is_text(text: str) -> None:
    assert read_pairs([f"a={text}"], "--option") == {"a": text}


def test_an_empty_value_is_an_empty_text() -> None:
    assert read_pairs(["a="], "--option") == {"a": ""}


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (["a"], "--option: 'a' is not KEY=VALUE"),
        (["=1"], "--option: '=1' is not KEY=VALUE"),
        (["a=1", "b=2", "a=3"], "--option: a is given twice"),
        (["a=[1, 2"], "--option: a=[1, 2: this is not YAML"),
        (["a='x"], "put a text in quotes"),
        (["a={b: 1, b: 2}"], 'the key "b" is there twice'),
    ],
)
def test_a_wrong_pair_is_refused_by_name(pairs: list[str], said: str) -> None:
    with pytest.raises(UserError) as caught:
        read_pairs(pairs, "--option")
    assert said in str(caught.value)


def test_commas_divide_pairs_but_no_list_map_or_quoted_value() -> None:
    text = 'a=1,b=[2, [3, 4]],c={"d": 5, e: {f: 6}}, g="h,i",it\'s=7,'
    assert split_pairs(text, "--model_args") == {
        "a": 1,
        "b": [2, [3, 4]],
        "c": {"d": 5, "e": {"f": 6}},
        "g": "h,i",
        "it's": 7,
    }


def test_the_original_s_model_args_follow_the_same_rules() -> None:
    given = ModelArguments.model_validate({"model_args": "pretrained=some/model,temperature=1e-1,stop=12:30"})
    assert given.model_args == {"pretrained": "some/model", "temperature": 0.1, "stop": "12:30"}


def test_flags_of_the_original_s_trainer_are_numbers_where_a_manifest_has_numbers() -> None:
    from thinkimg.openthinkimg.train_flags import read_flags

    _, others = read_flags(["--adam_epsilon", "1e-8", "--hub_model_id=12:30"])
    assert others == {"adam_epsilon": 1e-8, "hub_model_id": "12:30"}


def test_a_tool_gets_the_value_that_was_read(chart: Path) -> None:
    with pytest.raises(UserError, match="box"):
        run(Call("Crop", ["box=no"], [chart]))
    assert "Cropped [0, 0, 50, 40]" in run(Call("Crop", ["box=[0, 0, 5e1, 40]"], [chart])).text


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    from PIL import Image as Pillow

    Pillow.new("RGB", (100, 80), "white").save(tmp_path / "chart.png")
    return tmp_path / "chart.png"


def test_configuration_files_follow_the_same_rules(tmp_path: Path) -> None:
    file = tmp_path / "server.yaml"
    file.write_text("tools: [{name: Crop}]\nclient_seconds: 1e1\n")
    assert read_config(file).client_seconds == 10.0
    file.write_text("tools: [{name: Crop}]\nport: 1\nport: 2\n")
    with pytest.raises(UserError, match='the key "port" is there twice'):
        read_config(file)
    file.write_text("tools: [{name: Crop}]\n---\nport: 2\n")
    with pytest.raises(UserError, match="several documents"):
        read_config(file)


class Cluster:
    """What is applied to it."""

    def __init__(self) -> None:
        self.applied: list[dict[str, Any]] = []

    def apply(self, document: dict[str, Any]) -> None:
        self.applied.append(document)


def test_what_is_sent_to_a_cluster_is_what_was_checked(tmp_path: Path) -> None:
    manifest = (REPOSITORY / "manifests" / "toolrljob-cpu.yaml").read_text()
    file = tmp_path / "job.yaml"
    file.write_text(re.sub(r"learningRate: \S+?([,}\n])", r"learningRate: 1e-5\1", manifest))
    cluster = Cluster()
    apply_manifest(cast(Any, cluster), file)
    job = next(document for document in cluster.applied if document["kind"] == "ToolRLJob")
    rates = [block["learningRate"] for stage in job["spec"]["stages"] for block in stage.values()
             if isinstance(block, dict) and "learningRate" in block]  # fmt: skip
    assert rates
    assert set(rates) == {1e-5}
