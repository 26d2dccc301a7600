"""docs/guides/viewer.md: its commands, on runs as small jobs leave them."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[2]

from tests.support.viewer.fabricated_run import write_run  # noqa: E402
from thinkimg.trajectory import read_trajectories, write_trajectories  # noqa: E402

GUIDE = (ROOT / "docs" / "guides" / "viewer.md").read_text()


def command(name: str) -> str:
    (found,) = re.findall(rf"<!-- shell: {name} -->\n```bash\n(.*?)```", GUIDE, re.DOTALL)
    return found.strip()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("viewer-guide")
    write_run(folder / "runs" / "demo")
    write_run(folder / "runs" / "other", seed=1, questions=4, steps=10)
    mine = list(read_trajectories(folder / "runs/other/stages/table/sft/greedy.jsonl"))
    write_trajectories(mine, folder / "answers" / "mine.jsonl")
    return folder


def environment(folder: Path) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "XDG_CACHE_HOME": str(folder / "cache"), "PYTHONUNBUFFERED": "1"}


@pytest.mark.parametrize(("name", "runs"), [("serve", ["demo"]), ("several", ["demo", "other", "mine"])])
def test_runs_are_served(folder, name, runs):
    line = f"exec {command(name)} --port 0"
    with subprocess.Popen(
        ["bash", "-c", line], cwd=folder, env=environment(folder), stdout=subprocess.PIPE, text=True
    ) as view:
        assert view.stdout is not None
        names, url = re.fullmatch(r"(.*): (http://127\.0\.0\.1:\d+/)\n", view.stdout.readline()).groups()
        try:
            assert names == ", ".join(runs)
            assert view.stdout.readline().startswith("from another machine: ssh -L ")
            assert httpx.get(url + "api/state").json()["runs"] == runs
        finally:
            view.send_signal(signal.SIGINT)
        assert view.wait(60) == 0


def test_a_selection_is_written(folder):
    subprocess.run(["bash", "-ec", command("export")], cwd=folder, env=environment(folder), check=True, timeout=200)
    page = (folder / "wrong.html").read_text()
    wrong = [
        one for mode in ("greedy", "sampled")
        for one in read_trajectories(folder / f"runs/demo/stages/table/v-toolrl/{mode}.jsonl") if one.correct is False
    ]  # fmt: skip
    wrong += [
        one for path in (folder / "runs/demo/stages/v-toolrl/trajectories").glob("*.jsonl")
        for one in read_trajectories(path) if one.correct is False
    ]  # fmt: skip
    assert wrong
    assert all(f'"{one.id}"' in page for one in wrong)


def test_every_filter_of_the_guide_exists():
    from urllib.parse import parse_qsl

    from thinkimg.viewer.selection import SORTS, Selection

    for query in re.findall(r"#/trajectories\?([^`\s]+)", GUIDE):
        assert set(dict(parse_qsl(query))) <= set(Selection.model_fields)
    assert f"{ {10: 'Ten'}[len(SORTS)] } orders" in GUIDE
