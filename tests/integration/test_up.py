"""`thinkimg serve` and `thinkimg up` as commands: real processes, real signals."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import httpx
import pytest
import yaml
from rich.console import Console

from tests.support.serving.sample_servers import ENVIRONMENT, SAMPLE_TOOLS
from tests.support.tools.vlm_endpoint import VLMEndpoint, serve_vlm
from thinkimg.cli.fleet import table_of
from thinkimg.serving.config import ServerConfig
from thinkimg.serving.load import Load, load_of
from thinkimg.serving.supervisor import ServerSpec, ServerStatus

SECONDS = 200


class Command:
    """`thinkimg …` in a process group of its own, with its output read line by line."""

    def __init__(self, folder: Path, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        environment = {**os.environ, **ENVIRONMENT, "COLUMNS": "200", **(env or {})}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "thinkimg.cli", *arguments],
            cwd=folder, env=environment, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def until(self, pattern: str) -> re.Match[str]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if match := re.search(pattern, line):
                return match
        assert self.process.stderr is not None
        raise AssertionError(f"it ended without saying {pattern!r}: {self.process.stderr.read()}")

    def ended(self) -> int:
        return self.process.wait(SECONDS)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Command]]:
    commands: list[Command] = []

    def start(*arguments: str, env: Mapping[str, str] | None = None) -> Command:
        commands.append(Command(tmp_path, *arguments, env=env))
        return commands[-1]

    yield start
    for command in commands:
        if command.process.poll() is None:
            command.process.kill()
        command.process.wait()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def fleet(folder: Path) -> None:
    service = {"tools": [{"entry_point": f"{SAMPLE_TOOLS}:echo"}]}
    services = [{"name": "twin", "replicas": 2, "devices": ["5", "6"], **service}]
    (folder / "tools.yaml").write_text(yaml.safe_dump({"services": services}))


def test_up_restarts_what_dies_and_leaves_nothing_behind(run: Callable[..., Command], tmp_path: Path) -> None:
    fleet(tmp_path)
    up = run("up", "tools.yaml")
    first = up.until(r"(twin-\d): ready at (\S+) \(pid (\d+)\)")
    second = up.until(r"(twin-\d): ready at (\S+) \(pid (\d+)\)")
    up.until("all 2 ready")
    assert {first[1], second[1]} == {"twin-1", "twin-2"}
    assert httpx.get(f"{first[2]}/v1/tools", trust_env=False).json()["tools"][0]["name"] == "Echo"
    devices = Path(f"/proc/{first[3]}/environ").read_bytes().split(b"\0")
    assert f"CUDA_VISIBLE_DEVICES={'5' if first[1] == 'twin-1' else '6'}".encode() in devices

    os.kill(int(first[3]), signal.SIGKILL)
    up.until(rf"{first[1]}: not running: it was ended by SIGKILL; again in 0\.5 s")
    again = up.until(rf"{first[1]}: ready at (\S+) \(pid (\d+)\)")
    assert again[1] == first[2], "the same address"

    up.process.send_signal(signal.SIGTERM)
    assert up.ended() == 0
    assert not any(alive(int(pid)) for pid in (second[3], again[2]))
    assert sorted(path.name for path in (tmp_path / "logs" / "tools").glob("*.log")) == ["twin-1.log", "twin-2.log"]


def test_control_c_while_it_starts_leaves_nothing_behind(run: Callable[..., Command], tmp_path: Path) -> None:
    fleet(tmp_path)
    up = run("up", "tools.yaml")
    up.until("twin-1: starting")
    children = Path(f"/proc/{up.process.pid}/task/{up.process.pid}/children").read_text().split()
    assert len(children) == 2
    os.killpg(up.process.pid, signal.SIGINT)
    assert up.ended() == 0
    assert not any(alive(int(pid)) for pid in children)


@pytest.fixture
def endpoint() -> Iterator[VLMEndpoint]:
    with serve_vlm(key="canary-endpoint") as server:
        yield server


def test_a_secret_of_the_shell_reaches_the_servers_that_need_it_and_no_other(
    run: Callable[..., Command], tmp_path: Path, endpoint: VLMEndpoint
) -> None:
    shell = {
        "HF_TOKEN": "canary-hub", "AWS_SECRET_ACCESS_KEY": "canary-cloud", "ENDPOINT_KEY": "canary-endpoint",
        "MODEL_KEY": "canary-model", "MY_PASSWORD": "canary-listed", "THINKIMG_PLANNER_API_KEY": "canary-planner",
        "THINKIMG_PASS_ENVIRONMENT": "MY_PASS*", "HTTPS_PROXY": "http://proxy:1", "NO_PROXY": "*", "NCCL_DEBUG": "WARN",
    }  # fmt: skip
    asks = {"endpoint": endpoint.url, "model": "some", "api_key_variable": "ENDPOINT_KEY"}
    services = [
        {"name": "crop", "tools": [{"name": "Crop"}], "env": {"OWN": "canary-own"}, "api_key": "canary-key"},
        {"name": "point", "tools": [{"name": "Point", "backend": "vlm", "options": asks}]},
    ]
    model = {"name": "some", "base_url": "http://127.0.0.1:9/v1", "api_key_variable": "MODEL_KEY"}
    file = {"services": services, "gateway": {"port": 0, "models": [model]}}
    (tmp_path / "tools.yaml").write_text(yaml.safe_dump(file))
    up = run("up", "tools.yaml", env=shell)
    found = {}
    for _ in range(3):
        name, pid = up.until(r"(\S+): ready at \S+ \(pid (\d+)\)").groups()
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        found[name] = {word.decode() for word in re.findall(rb"canary-[a-z]+", environment)}
        for name_of_setting in ("HTTPS_PROXY", "NCCL_DEBUG"):
            assert f"{name_of_setting}={shell[name_of_setting]}".encode() in environment.split(b"\0")
        assert b"canary" not in Path(f"/proc/{pid}/cmdline").read_bytes()
        assert b"canary" not in (tmp_path / "logs" / "tools" / f"{name}.log").read_bytes()
    assert found == {
        "crop": {"canary-listed", "canary-own", "canary-key"},
        "point": {"canary-listed", "canary-endpoint"},
        "gateway": {"canary-listed", "canary-model", "canary-key"},
    }
    (told, *_) = (tmp_path / "logs" / "tools" / "crop.log").read_text().splitlines()
    assert "AWS_SECRET_ACCESS_KEY" in json.loads(told)["names"]
    assert "THINKIMG_PASS_ENVIRONMENT" in json.loads(told)["event"]


GOOD = {"name": "good", "tools": [{"entry_point": f"{SAMPLE_TOOLS}:echo"}]}
BAD = {"name": "bad", "tools": [{"entry_point": f"{SAMPLE_TOOLS}:absent"}]}


def test_a_service_that_is_refused_stops_nothing_else_and_the_gateway_goes_on_without_it(
    run: Callable[..., Command], tmp_path: Path
) -> None:
    (tmp_path / "tools.yaml").write_text(yaml.safe_dump({"services": [GOOD, BAD], "gateway": {"port": 0}}))
    up = run("up", "tools.yaml")
    whole = "2 of 3 ready; without bad"
    said: list[str] = []
    while whole not in (said or [""])[-1]:
        said.append(up.until("bad: refused|gateway: ready|good: ready|of 3 ready").string)
    refusal = rf"bad: refused, and not started again: tools\[0\].entry_point: {SAMPLE_TOOLS}:absent cannot be imported"
    assert re.search(refusal, "".join(said))
    ready = re.findall(r"gateway: ready at (\S+)", "".join(said))[-1]
    tools = httpx.get(f"{ready}/v1/tools", trust_env=False).json()["tools"]
    assert [tool["name"] for tool in tools] == ["Echo"]
    up.process.send_signal(signal.SIGTERM)
    assert up.ended() == 0


def test_where_no_service_can_start_there_is_nothing_to_wait_for(run: Callable[..., Command], tmp_path: Path) -> None:
    worse = {**BAD, "name": "worse"}
    (tmp_path / "tools.yaml").write_text(yaml.safe_dump({"services": [BAD, worse], "gateway": {"port": 0}}))
    up = run("up", "tools.yaml")
    assert up.ended() == 2
    assert up.process.stderr is not None
    said = up.process.stderr.read()
    assert f"bad.tools[0].entry_point: {SAMPLE_TOOLS}:absent cannot be imported" in said
    assert f"worse: {SAMPLE_TOOLS}:absent cannot be imported" in said


def test_serve_runs_until_it_is_told_to_stop(run: Callable[..., Command]) -> None:
    serve = run("serve", "Crop", "DrawHorizontalLineByY")
    event = json.loads(serve.until(r"\{.*\}")[0])
    assert event["tools"] == ["Crop", "DrawHorizontalLineByY"]
    assert httpx.get(f"{event['url']}/readyz", trust_env=False).status_code == 200
    serve.process.send_signal(signal.SIGTERM)
    assert serve.ended() == 0


def test_what_is_said_beside_a_config_comes_before_it(run: Callable[..., Command], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = {"host": "127.0.0.1", "port": taken.getsockname()[1], "workers": 3, "tools": [{"name": "Crop"}]}
        (tmp_path / "server.yaml").write_text(yaml.safe_dump(config))
        serve = run("serve", "--config", "server.yaml", "--port", "0")
        event = json.loads(serve.until(r"\{.*\}")[0])
    assert event["tools"] == ["Crop"]
    assert httpx.get(f"{event['url']}/readyz", trust_env=False).status_code == 200
    serve.process.send_signal(signal.SIGTERM)
    assert serve.ended() == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "name tools to serve"),
        (("Crop", "OCR", "--backend", "x"), "speak of one named tool"),
        (("--config", "server.yaml", "--backend", "x"), "speak of one named tool"),
        (("--config", "server.yaml", "--option", "x=1"), "speak of one named tool"),
        (("Crop", "--option", "x"), "is not KEY=VALUE"),
    ],
)
def test_serve_refuses(arguments: tuple[str, ...], said: str, run: Callable[..., Command]) -> None:
    serve = run("serve", *arguments)
    assert serve.ended() == 2
    assert serve.process.stderr is not None
    assert said in serve.process.stderr.read()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--out", "x.png"), "belongs to a call"),
        (("Crop", "--backend", "pillow"), "belongs to a call"),
        (("Crop", "box=[0,0,1,1]", "--server", "http://127.0.0.1:9", "--option", "a=1"), "a server has its own"),
    ],
)
def test_tools_refuses_what_it_would_ignore(arguments: tuple[str, ...], said: str, run: Callable[..., Command]) -> None:
    tools = run("tools", *arguments)
    assert tools.ended() == 2
    assert tools.process.stderr is not None
    assert said in tools.process.stderr.read()


def test_the_table_fits_a_terminal_and_says_what_is_wrong() -> None:
    config = ServerConfig.model_validate({"tools": [{"name": "Crop"}]})
    specs = [ServerSpec("grounding-dino-1", config, {"CUDA_VISIBLE_DEVICES": "0,1"}), ServerSpec("crop", config)]
    specs.append(ServerSpec("sam", config))
    log = Path("x.log")
    statuses = [
        ServerStatus("grounding-dino-1", "ready", "http://127.0.0.1:20003", 7, 0, 3700.0, "", "", log),
        ServerStatus("crop", "waiting", "", None, 12, 3.0, "it was ended by SIGKILL; again in 8.0 s", "", log),
        ServerStatus("sam", "refused", "", None, 0, 9.0, "no weights here", "options.weights", log),
    ]
    console = Console(width=80, record=True, force_terminal=False)
    console.print(table_of(specs, statuses, {"grounding-dino-1": Load(123_456, 78, 9)}))
    lines = console.export_text().rstrip().splitlines()
    assert lines[1].split() == ["grounding-dino-1", "ready", "1.0h", "127.0.0.1:20003", "0,1", "123456", "78", "9", "0"]
    assert lines[2].split() == ["crop", "waiting", "3s", "12"], "nothing is known of its calls"
    assert lines[3].split() == ["sam", "refused", "9s", "0"]
    assert lines[4].strip() == "crop: it was ended by SIGKILL; again in 8.0 s"
    assert lines[5].strip() == "sam: options.weights: no weights here"
    assert all("…" not in line for line in lines)


def test_the_load_is_the_sum_over_a_servers_tools() -> None:
    text = """
# TYPE thinkimg_tool_calls_total counter
thinkimg_tool_calls_total{tool="A"} 3.0
thinkimg_tool_calls_total{tool="B"} 4.0
# TYPE thinkimg_tool_errors_total counter
thinkimg_tool_errors_total{family="model",kind="refused",tool="A"} 2.0
# TYPE thinkimg_tool_calls_in_flight gauge
thinkimg_tool_calls_in_flight 1.0
"""
    assert load_of(text) == Load(7, 2, 1)


def test_a_gateways_load_is_told_by_its_own_metrics() -> None:
    text = """
# TYPE thinkimg_gateway_tool_calls_total counter
thinkimg_gateway_tool_calls_total{face="mcp",outcome="ok",tool="A"} 3.0
thinkimg_gateway_tool_calls_total{face="tools",outcome="refused",tool="A"} 4.0
# TYPE thinkimg_gateway_requests_in_flight gauge
thinkimg_gateway_requests_in_flight 2.0
"""
    assert load_of(text) == Load(7, 4, 2)
