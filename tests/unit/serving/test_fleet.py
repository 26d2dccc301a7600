"""The file of `thinkimg up`: what it says, what is refused, and OpenThinkIMG's own."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from thinkimg.api.v1alpha1 import ManifestError
from thinkimg.errors import UserError
from thinkimg.openthinkimg.services import read_openthinkimg
from thinkimg.serving.fleet import parse_fleet, read_fleet

CROP = [{"name": "Crop"}]


def written(folder: Path, document: Any, name: str = "tools.yaml") -> Path:
    path = folder / name
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return path


def test_replicas_get_names_ports_and_devices_of_their_own() -> None:
    service = {"name": "sam", "tools": CROP, "port": 9000, "replicas": 2, "devices": [0, "1"], "env": {"A": "b"}}
    one, two = parse_fleet({"services": [service]}).specs()
    assert (one.name, one.config.port, dict(one.env)) == ("sam-1", 9000, {"A": "b", "CUDA_VISIBLE_DEVICES": "0"})
    assert (two.name, two.config.port, dict(two.env)) == ("sam-2", 9001, {"A": "b", "CUDA_VISIBLE_DEVICES": "1"})


def test_a_service_alone_keeps_its_name_and_the_shells_devices() -> None:
    (only,) = parse_fleet({"services": [{"name": "crop", "tools": CROP, "workers": 2}]}).specs()
    assert (only.name, only.config.port, only.config.workers, dict(only.env)) == ("crop", 0, 2, {})
    (on,) = parse_fleet({"services": [{"name": "crop", "tools": CROP, "devices": 3}]}).specs()
    assert dict(on.env) == {"CUDA_VISIBLE_DEVICES": "3"}


@pytest.mark.parametrize(
    ("services", "field", "said"),
    [
        ([], "services", "at least 1 item"),
        ([{"name": "a", "tools": CROP, "prot": 1}], "services[0].prot", "not permitted"),
        ([{"name": "a", "tools": [{"name": "Corp"}]}], "services[0].tools[0].name", "Did you mean Crop?"),
        (
            [{"name": "a", "tools": [{"name": "Crop", "backend": "x"}]}],
            "services[0].tools[0].backend",
            "known: builtin",
        ),
        ([{"name": "a", "tools": CROP, "replicas": 2, "devices": ["0"]}], "services[0]", "lists 1 for 2 replicas"),
        ([{"name": "a", "tools": CROP, "port": 65535, "replicas": 2}], "services[0]", "do not suffice"),
        ([{"name": "../a", "tools": CROP}], "services[0].name", "pattern"),
        ([{"name": "a", "tools": CROP}, {"name": "a", "tools": CROP}], "", "different names; twice there: a"),
        (
            [{"name": "a", "tools": CROP, "port": 9, "replicas": 2}, {"name": "b", "tools": CROP, "port": 10}],
            "",
            "different ports; twice there: 10",
        ),
    ],
)
def test_the_wrong_field_is_named(services: list[Any], field: str, said: str) -> None:
    with pytest.raises(UserError, match=said.replace("?", r"\?")) as caught:
        parse_fleet({"services": services})
    assert caught.value.field == field


def test_a_manifest_with_tools_is_a_fleet(tmp_path: Path) -> None:
    crop = {"apiVersion": "thinkimg.dev/v1alpha1", "kind": "VisionTool", "metadata": {"name": "crop"}}
    crop["spec"] = {"tool": "Crop", "callTimeoutSeconds": 7, "batching": {"maxSize": 3}, "replicas": 2}
    plan = read_fleet(written(tmp_path, crop))
    (server,) = plan.servers
    assert (server.name, server.config.default_timeout_seconds) == ("crop", 7)
    assert server.config.tools[0].batching.max_size == 3
    assert any("spec.replicas" in note for note in plan.notes)


def test_the_demos_tools_can_be_started_and_its_job_is_passed_over() -> None:
    plan = read_fleet(Path(__file__).parents[3] / "manifests" / "toolrljob-cpu.yaml")
    assert [server.name for server in plan.servers] == ["ocr", "crop", "zoom", "point", "hline"]
    assert plan.notes == ["ToolRLJob/demo is passed over: `thinkimg run` runs jobs"]


def test_a_manifest_that_cannot_be_served_is_refused(tmp_path: Path) -> None:
    tool = {"apiVersion": "thinkimg.dev/v1alpha1", "kind": "VisionTool", "metadata": {"name": "x"}}
    with pytest.raises(ManifestError, match="cannot be used in a local run"):
        read_fleet(written(tmp_path, {**tool, "spec": {"tool": "Custom", "image": "i"}}))
    with pytest.raises(ManifestError, match='"OCRR" is not a tool'):
        read_fleet(written(tmp_path, {**tool, "spec": {"tool": "OCRR"}}))


@pytest.mark.parametrize("text", ["", "services: [", "a: 1\n---\nb: 2\n", "tool_worker_config: []"])
def test_a_file_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"tools\.yaml"):
        read_fleet(written(tmp_path, text))
    with pytest.raises(UserError, match=r"absent\.yaml"):
        read_fleet(tmp_path / "absent.yaml")


OPENTHINKIMG = """
base_dir: /home/me/OpenThinkIMG/tool_server/tool_workers
log_folder: /home/me/logs
partition: "gpu"
default_calculate_gpus: 1
retry_interval: 1
controller_config:
  worker_name: controller
  job_name: controller
  calculate_type: control
  cmd: {script-addr: ./online_workers/controller.py, port: 20001, host: "0.0.0.0"}
tool_worker_config:
  - Point:
      worker_name: Point
      job_name: point
      calculate_type: calculate
      conda_env: tool-server
      srun_kwargs: {w: node-7}
      cuda_visible_devices: "0,1"
      cmd: {script-addr: ./online_workers/molmo_point_worker.py, port: 20027, host: "0.0.0.0", model_path: /w}
  - OCR:
      worker_name: OCR
      job_name: ocr
      calculate_type: control
      cuda_visible_devices: 2
      cmd: {script-addr: tool_server.tool_workers.online_workers.ocr_worker, port: 20009, limit-model-concurrency: 3}
  - Line:
      worker_name: DrawHorizontalLineByY
      job_name: line
      calculate_type: control
      cmd: {script-addr: ./online_workers/DrawHorizontalLineByY_worker.py, port: 20032}
"""


def test_openthinkimgs_file_is_read_and_what_is_left_out_is_named(tmp_path: Path) -> None:
    plan = read_openthinkimg(written(tmp_path, OPENTHINKIMG, "all_service.yaml"))
    point, ocr, line = plan.servers
    assert [spec.config.tools[0].name for spec in (point, ocr, line)] == ["Point", "OCR", "DrawHorizontalLineByY"]
    assert (point.name, point.config.host, point.config.port) == ("Point", "127.0.0.1", 20027)
    assert dict(point.env) == {"CUDA_VISIBLE_DEVICES": "0,1"}
    assert (ocr.config.port, ocr.config.workers, dict(ocr.env)) == (20009, 3, {"CUDA_VISIBLE_DEVICES": "2"})
    assert plan.gateway == {"port": 20001, "host": "0.0.0.0"}
    note, moved = plan.notes
    assert moved.endswith(": tool_worker_config[0].Point.cmd.host")
    assert "gateway" in moved
    ignored = set(note.partition(": ")[2].split(", "))
    assert {"base_dir", "log_folder", "partition", "controller_config.job_name"} <= ignored
    assert {f"tool_worker_config[0].Point.{key}" for key in ("job_name", "conda_env", "srun_kwargs")} <= ignored
    assert "tool_worker_config[0].Point.cmd.model_path" in ignored
    assert "cuda_visible_devices" not in note
    assert "cmd.port" not in note


def test_without_a_controller_workers_listen_where_the_file_says(tmp_path: Path) -> None:
    """And refuse to, unless the environment has a key: see test_doors.py."""
    alone = OPENTHINKIMG.replace("controller_config:", "other:")
    plan = read_openthinkimg(written(tmp_path, alone))
    assert plan.servers[0].config.host == "0.0.0.0"


def test_a_worker_without_a_tool_is_refused_with_its_name(tmp_path: Path) -> None:
    text = OPENTHINKIMG.replace("molmo_point_worker", "cogcom_grounding_worker")
    with pytest.raises(UserError, match="no tool for the worker Point") as caught:
        read_openthinkimg(written(tmp_path, text))
    assert caught.value.field == "tool_worker_config[0].Point.cmd.script-addr"


@pytest.mark.parametrize("text", ["a: 1", "[]", "tool_worker_config: [3]", "tool_worker_config: [{a: {b: 1}}]", ": ["])
def test_a_file_that_is_not_openthinkimgs_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError):
        read_openthinkimg(written(tmp_path, text))
