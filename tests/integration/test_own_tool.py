"""A tool of another package: the guide's files, built and installed, with real entry points, in a scratch folder."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image as Pillow

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "guides" / "add-a-tool.md").read_text()
FILE = re.compile(r"<!-- file: (?P<path>[\w./-]+) -->\n```\w*\n(?P<code>.*?)```", re.DOTALL)
SHELL = re.compile(r"<!-- shell: installed -->\n```bash\n(.*?)```", re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The guide's files, with the package installed into `site`."""
    folder = tmp_path_factory.mktemp("own-tool")
    for match in FILE.finditer(GUIDE):
        path = folder / match["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(match["code"])
    uv = shutil.which("uv") or ROOT / ".cache" / "uv" / "bin" / "uv"
    package = folder / "package"
    package.mkdir()
    for name in ("brightness", "pyproject.toml"):
        shutil.move(folder / name, package / name)
    for command in (["build", "--wheel", "--out-dir", folder / "dist", package], _install(folder)):
        subprocess.run([uv, *command], check=True, capture_output=True, timeout=800)
    assert list((folder / "site").glob("brightness-*.dist-info/entry_points.txt"))
    Pillow.new("RGB", (100, 50), (128, 128, 128)).save(folder / "chart.png")
    return folder


def _install(folder: Path) -> list[object]:
    wheel = folder / "dist" / "brightness-0.1.0-py3-none-any.whl"
    return ["pip", "install", "--no-deps", "--offline", "--target", folder / "site", "--python", sys.executable, wheel]


def run(folder: Path, *command: str, installed: bool = True) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("THINKIMG_")}
    environment["COLUMNS"] = "200"
    environment["PYTHONPATH"] = str(folder / "site") if installed else ""
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=800
    )


def test_the_declaration_is_no_longer_than_twenty_lines() -> None:
    (code,) = [match["code"] for match in FILE.finditer(GUIDE) if match["path"] == "brightness/__init__.py"]
    function = code[code.index("@tool(") :].strip().splitlines()
    assert len(function) <= 20


def test_the_guides_commands_run(folder: Path) -> None:
    (block,) = SHELL.findall(GUIDE)
    commands = [shlex.split(line, comments=True) for line in block.splitlines() if line.strip()]
    listing, schema, call = (run(folder, "-m", "thinkimg.cli", *command[1:]) for command in commands)
    assert (listing.returncode, schema.returncode, call.returncode) == (0, 0, 0), call.stderr
    assert re.search(r"^Brightness \(builtin\): Measure how light", listing.stdout, re.MULTILINE)
    assert json.loads(schema.stdout)["function"]["name"] == "Brightness"
    assert call.stdout.strip() == "Brightness 50.2 of 100."


SERVE = """
import asyncio, sys
from pathlib import Path
from thinkimg.client import ToolClient
from thinkimg.image import Image
from thinkimg.jobs.runner.run import prepare, servers_of
from thinkimg.serving import Supervisor
from thinkimg.serving.fleet import read_fleet

async def measure(endpoints):
    async with ToolClient(endpoints) as client:
        image = Image.from_file("chart.png")
        return (await client.call("brightness", {"image": "img_1"}, {"img_1": image})).result.text

if sys.argv[1].endswith("job.yaml"):
    job_run = prepare(Path(sys.argv[1]), Path("run"))
    servers = servers_of(job_run.manifest, job_run.job)
else:
    servers = read_fleet(Path(sys.argv[1])).servers
with Supervisor(servers, Path("logs"), ready_seconds=200) as running:
    print(asyncio.run(measure(running.endpoints)))
"""


@pytest.mark.parametrize("file", ["brightness.yaml", "tools.yaml", "job.yaml"])
def test_a_manifest_and_a_service_file_may_name_it(folder: Path, file: str) -> None:
    """As `thinkimg up` starts it, and, for the job, as every stage of `thinkimg run` does."""
    if file == "job.yaml":
        (folder / file).write_text((folder / "brightness.yaml").read_text() + "---\n" + JOB)
    done = run(folder, "-c", SERVE, file)
    assert done.stdout.strip() == "Brightness 50.2 of 100.", done.stderr


def test_where_the_package_is_not_installed_the_name_is_refused(folder: Path) -> None:
    done = run(folder, "-m", "thinkimg.cli", "up", "brightness.yaml", installed=False)
    assert done.returncode == 2
    assert 'spec.tool: "Brightness" is not a tool of ThinkIMG' in done.stderr
    assert "needs its package installed here, or `image`" in done.stderr


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("Brightness = ", "Lightness = "), "the tool is called Brightness; register it under that name"),
        (("brightness:brightness", "brightness:ImageStat"), "not a tool made by"),
        (("brightness:brightness", "no_such_module:x"), "it cannot be imported: ModuleNotFoundError"),
    ],
)
def test_a_package_that_is_wrong_is_named(folder: Path, change: tuple[str, str], said: str, tmp_path: Path) -> None:
    shutil.copytree(folder / "site", tmp_path / "site")
    (points,) = (tmp_path / "site").glob("brightness-*.dist-info/entry_points.txt")
    points.write_text(points.read_text().replace(*change))
    name = change[1].removesuffix(" = ") if change[1].endswith(" = ") else "Brightness"
    done = run(tmp_path, "-m", "thinkimg.cli", "tools", name)
    assert done.returncode == 2
    assert said in done.stderr
    assert "of brightness" in done.stderr


JOB = """
apiVersion: thinkimg.dev/v1alpha1
kind: ToolRLJob
metadata: {name: own}
spec:
  model: {uri: "preset://tiny"}
  tools: [{name: brightness}]
  data:
    train: {uri: "charts://?questions=4"}
    validation: {uri: "charts://?questions=4"}
    test: {uri: "charts://?questions=4"}
  stages:
    - {name: zero, type: Evaluate, evaluate: {models: [base], split: test}}
"""
