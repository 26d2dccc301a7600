"""Processes: they start, are restarted, stop, and never stay behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.support import REPOSITORY
from tests.support.serving.sample_servers import spec
from thinkimg.errors import InfrastructureError, UserError
from thinkimg.serving import ServerConfig, ServerSpec, Supervisor
from thinkimg.serving import supervisor as supervisor_module

Start = Callable[..., Supervisor]
http = httpx.Client(verify=False, trust_env=False, timeout=2)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def answers(url: str) -> bool:
    try:
        return http.get(f"{url}/readyz").status_code == 200
    except httpx.HTTPError:
        return False


def test_servers_run_while_the_block_lasts(tmp_path: Path) -> None:
    with Supervisor([spec("one", "echo"), spec("two", "Crop")], tmp_path) as supervisor:
        pids = supervisor.pids
        assert all(answers(url) for url in supervisor.endpoints)
        assert list(pids) == ["one", "two"]
        assert (tmp_path / "one.log").exists()
    assert not any(alive(pid) for pid in pids.values())


def test_a_killed_server_comes_back_at_the_same_address(start: Start) -> None:
    supervisor = start(spec("phoenix", "echo"))
    (url,), (pid,) = supervisor.endpoints, supervisor.pids.values()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not answers(url))
    wait_until(lambda: answers(url))
    assert supervisor.restarts == 1
    assert supervisor.endpoints == [url]
    assert supervisor.pids["phoenix"] != pid


def test_a_busy_port_is_the_users_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError) as caught:
            Supervisor([spec("ocr", "echo", port=port)], tmp_path).start()
    assert caught.value.field == "ocr.port"
    assert str(port) in str(caught.value)


def test_an_unknown_tool_is_the_users_error_and_nobody_stays(tmp_path: Path) -> None:
    supervisor = Supervisor([spec("good", "echo"), spec("bad", "Nonsense")], tmp_path)
    with pytest.raises(UserError, match=r"bad\.tools\[0\]\.name"):
        supervisor.start()
    assert supervisor.pids == {}


def test_one_that_cannot_load_shows_the_end_of_its_log(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError) as caught:
        Supervisor([spec("ill", "broken")], tmp_path).start()
    assert "the weights are damaged" in str(caught.value)
    assert str(tmp_path / "ill.log") in str(caught.value)


def test_one_that_is_not_ready_in_time_is_stopped(tmp_path: Path) -> None:
    supervisor = Supervisor([spec("late", "echo")], tmp_path, ready_seconds=0.05)
    with pytest.raises(InfrastructureError, match="not ready in time"):
        supervisor.start()
    assert supervisor.pids == {}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "_FIRST_BACKOFF_SECONDS", 0.001)


@pytest.mark.usefixtures("quick")
def test_what_cannot_start_is_given_up_and_touches_nobody_else(tmp_path: Path) -> None:
    absent = ServerConfig.model_validate({"tools": [{"entry_point": "no.such.module:tool"}]})
    supervisor = Supervisor([spec("good", "echo"), spec("ill", "broken"), ServerSpec("absent", absent)], tmp_path)
    supervisor.launch()
    try:
        wait_until(lambda: supervisor.statuses()[1].ended and supervisor.statuses()[2].ended, 200)
        wait_until(lambda: supervisor.statuses()[0].state == "ready")
        good, ill, wrong = supervisor.statuses()
        assert answers(good.url)
        assert (ill.state, ill.restarts) == ("failed", 4)
        assert ill.message.startswith("the weights are damaged, 5 times before it was ready; see ")
        assert (wrong.state, wrong.restarts, wrong.field) == ("refused", 0, "tools[0].entry_point")
        assert list(supervisor.pids) == ["good"]
    finally:
        supervisor.stop()
    assert supervisor.pids == {}


@pytest.mark.usefixtures("quick")
def test_what_may_pass_is_waited_for_as_long_as_it_takes(tmp_path: Path) -> None:
    supervisor = Supervisor([spec("patient", "waiting")], tmp_path)
    supervisor.launch()
    try:
        wait_until(lambda: supervisor.restarts > 5, 200)
        assert not supervisor.statuses()[0].ended
    finally:
        supervisor.stop()


def test_one_that_has_served_is_never_given_up(tmp_path: Path, quick: None) -> None:
    with Supervisor([spec("phoenix", "echo")], tmp_path) as supervisor:
        for death in range(1, 7):
            wait_until(lambda: answers(supervisor.endpoints[0]))
            os.kill(supervisor.pids["phoenix"], signal.SIGKILL)
            wait_until(lambda death=death: supervisor.restarts == death)  # type: ignore[misc]


def test_a_server_is_replaced_at_once(tmp_path: Path) -> None:
    with Supervisor([spec("one", "echo")], tmp_path) as supervisor:
        (pid,) = supervisor.pids.values()
        supervisor.replace(spec("one", "Crop"))
        wait_until(lambda: supervisor.statuses()[0].state == "ready" and supervisor.pids.get("one") not in (None, pid))
        tools = http.get(f"{supervisor.endpoints[0]}/v1/tools").json()["tools"]
        assert [tool["name"] for tool in tools] == ["Crop"]


def test_names_are_unique(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unique"):
        Supervisor([spec("a", "echo"), spec("a", "echo")], tmp_path)


def test_a_frozen_server_is_killed_after_its_drain_time(tmp_path: Path) -> None:
    supervisor = Supervisor([spec("frozen", "echo", drain_seconds=0)], tmp_path)
    with supervisor:
        (pid,) = supervisor.pids.values()
        os.kill(pid, signal.SIGSTOP)
    assert not alive(pid)


PROGRAM = """
import json, time
from pathlib import Path
from tests.support.serving.sample_servers import spec
from thinkimg.serving import ServerConfig, ServerSpec, Supervisor
from thinkimg.serving import supervisor as supervisor_module
with Supervisor([spec("a", "echo"), spec("b", "echo")], Path({folder!r})) as supervisor:
    print(json.dumps(list(supervisor.pids.values())), flush=True)
    {fork}
    try:
        time.sleep(1000)
    except KeyboardInterrupt:
        print(json.dumps([supervisor.pids, supervisor.restarts]), flush=True)
"""


def supervising(tmp_path: Path, fork: str = "pass") -> "tuple[subprocess.Popen[str], list[int]]":
    """A process that supervises, in a session of its own, and the servers' process ids."""
    program = PROGRAM.format(folder=str(tmp_path), fork=fork)
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, start_new_session=True, cwd=REPOSITORY
    )
    assert process.stdout is not None
    pids = json.loads(process.stdout.readline())
    assert all(map(alive, pids))
    return process, pids


def test_no_server_survives_the_sigkill_of_its_supervisor(tmp_path: Path) -> None:
    process, pids = supervising(tmp_path)
    process.kill()
    process.wait()
    wait_until(lambda: not any(map(alive, pids)))


def test_nor_when_a_fork_of_the_supervisor_lives_on(tmp_path: Path) -> None:
    process, pids = supervising(tmp_path, "import os; child = os.fork(); child or (time.sleep(200), os._exit(0))")
    process.kill()
    process.wait()
    wait_until(lambda: not any(map(alive, pids)))
    os.killpg(process.pid, signal.SIGKILL)


def test_control_c_reaches_the_group_and_the_servers_wait_for_the_supervisor(tmp_path: Path) -> None:
    process, pids = supervising(tmp_path)
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    running, restarts = json.loads(output)
    assert (sorted(running.values()), restarts) == (sorted(pids), 0)
    assert process.returncode == 0
    assert not any(map(alive, pids))
