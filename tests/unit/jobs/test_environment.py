"""What a manifest's variables and secrets become in the processes of a local run."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from thinkimg.api.v1alpha1 import parse_manifest
from thinkimg.api.v1alpha1.toolrljob import ToolRLJobSpec
from thinkimg.errors import UserError
from thinkimg.jobs.environment import environment_of_stage
from thinkimg.jobs.runner.processes import run_processes
from thinkimg.jobs.runner.run import servers_of

PLANNER = {"type": "Model", "model": {"baseUrl": "http://h/v1", "name": "m", "secretRef": {"name": "planner"}}}


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    for name, text in (("hub/token", "hf_x\n"), ("planner/token", "key"), ("extra/WANDB_API_KEY", "w"), ("s/k", "v")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def manifest(tool: dict[str, Any] | None = None, **spec: Any) -> Any:
    documents = [
        {
            "apiVersion": "thinkimg.dev/v1alpha1",
            "kind": "VisionTool",
            "metadata": {"name": "ocr"},
            "spec": {"tool": "OCR", **(tool or {})},
        },
        {
            "apiVersion": "thinkimg.dev/v1alpha1",
            "kind": "ToolRLJob",
            "metadata": {"name": "job"},
            "spec": {
                "model": {"uri": "hf://o/n", "secretRef": {"name": "hub"}},
                "tools": [{"name": "ocr"}],
                "data": {"train": {"uri": "charts://"}},
                "stages": [{"name": "cold", "type": "Synthesize", "synthesize": {"planner": PLANNER}}],
                **spec,
            },
        },
    ]
    return parse_manifest(yaml.safe_dump_all(documents))


def spec_with(**spec: Any) -> ToolRLJobSpec:
    return manifest(**spec).job().spec


def test_the_hubs_token_goes_to_every_stage_and_the_planners_key_to_its_own(secrets: Path) -> None:
    spec = spec_with()
    assert environment_of_stage(spec, "base", secrets) == {"HF_TOKEN": "hf_x"}
    assert environment_of_stage(spec, "cold", secrets) == {"HF_TOKEN": "hf_x", "THINKIMG_PLANNER_API_KEY": "key"}


def test_variables_have_values_or_come_from_secrets_and_win(secrets: Path) -> None:
    variables = [
        {"name": "PLAIN", "value": "1"},
        {"name": "EMPTY"},
        {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "HF_TOKEN", "value": "mine"},
    ]
    spec = spec_with(env=variables, secretRefs=[{"name": "extra"}])
    assert environment_of_stage(spec, "base", secrets) == {
        "PLAIN": "1", "EMPTY": "", "SECRET": "v", "HF_TOKEN": "mine", "WANDB_API_KEY": "w",
    }  # fmt: skip


def test_a_tool_server_gets_its_secrets(secrets: Path) -> None:
    made = manifest({"env": [{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]})
    (server,) = servers_of(made, made.job(), secrets)
    assert server.env == {"KEY": "v"}


def test_a_secret_that_is_not_there_is_named(secrets: Path) -> None:
    (secrets / "hub" / "token").unlink()
    with pytest.raises(UserError, match="hub/token"):
        environment_of_stage(spec_with(), "base", secrets)
    with pytest.raises(UserError, match="--secrets-dir"):
        environment_of_stage(spec_with(), "base", None)


def test_processes_of_a_stage_get_the_variables_and_share_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("thinkimg.jobs.runner.processes.available_cores", lambda: 4)
    said: list[str] = []
    command = ["sh", "-c", 'echo "$GREETING $RANK of $WORLD_SIZE with $OMP_NUM_THREADS threads"']
    run_processes(command, 2, {"GREETING": "hello"}, tmp_path / "log", 2, said.append)
    assert said == ["hello 0 of 2 with 2 threads\n"]
    run_processes(command, 2, {"GREETING": "hi", "OMP_NUM_THREADS": "1"}, tmp_path / "log", 2, said.append)
    assert said[1:] == ["hi 0 of 2 with 1 threads\n"]
    assert "hello 1 of 2 with 2 threads\n" in (tmp_path / "log").read_text()
