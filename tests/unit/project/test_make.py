"""The Makefile and its scripts, without downloading anything."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def executable(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *arguments], cwd=ROOT, capture_output=True, text=True)


def test_help_is_what_make_says_by_itself():
    said = make("--no-print-directory").stdout
    assert said == make("--no-print-directory", "help").stdout
    listed = set(re.findall(r"^  make ([a-z0-9-]+) ", said, re.MULTILINE))
    assert {
        "setup",
        "demo",
        "table",
        "check",
        "test",
        "test-fast",
        "coverage",
        "bench-rollout",
        "soak",
        "gpu-check",
        "e2e",
        "clean",
    } <= listed


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="there is a GPU")
def test_without_a_gpu_the_check_says_so_and_fails():
    done = make("gpu-check")
    assert done.returncode == 2
    assert "no GPU here, so nothing was checked" in done.stderr


def test_ci_runs_check_and_test_and_nothing_else():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text().splitlines()[-1] == "make check && make test"


@pytest.mark.parametrize("script", sorted((ROOT / "hack").glob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_valid_bash(script):
    assert subprocess.run(["bash", "-n", script]).returncode == 0


class Machine:
    """A machine with a few commands of ours and the shell's, and a copy of setup.sh that does not see this project."""

    def __init__(self, folder: Path) -> None:
        self.project = folder / "project"
        self.bin = folder / "bin"
        (self.project / "hack").mkdir(parents=True)
        (self.project / ".venv").mkdir()
        for name in ("setup.sh", "find_uv.sh"):
            shutil.copy(ROOT / "hack" / name, self.project / "hack")
        self.bin.mkdir()
        for name in ("bash", "dirname", "rm", "mkdir", "chmod", "cat", "cp"):
            (self.bin / name).symlink_to(shutil.which(name) or name)
        self.uv = 'if [ "$1" = --version ]; then echo uv; else echo "$0 $* cert=$SSL_CERT_FILE" >>uv.log; fi'

    def setup(self, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "hack/setup.sh"], cwd=self.project, env={"PATH": str(self.bin), **environment},
            capture_output=True, text=True,
        )  # fmt: skip

    @property
    def log(self) -> str:
        return (self.project / "uv.log").read_text()


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_setup_uses_the_uv_that_is_there(machine):
    executable(machine.bin / "uv", machine.uv)
    executable(machine.bin / "python3", "exit 1")
    assert machine.setup().returncode == 0
    assert "sync --frozen --extra all" in machine.log
    assert (machine.project / ".venv" / "setup.seconds").read_text().strip().isdigit()


def test_setup_brings_its_own_uv_where_there_is_none(machine):
    executable(machine.project / "uv.fake", machine.uv)
    pip = 'mkdir -p .cache/uv/bin && cp uv.fake .cache/uv/bin/uv && echo "pip $*" >>pip.log'
    executable(machine.project / "python.fake", pip)
    venv = 'mkdir -p "$3/bin" && cp python.fake "$3/bin/python"'
    executable(machine.bin / "python3", f'if [ "$2" = venv ]; then {venv}; else exit 1; fi')
    done = machine.setup()
    assert done.returncode == 0, done.stderr
    assert ".cache/uv/bin/uv sync --frozen --extra all" in machine.log
    assert machine.setup().returncode == 0
    assert len((machine.project / "pip.log").read_text().splitlines()) == 1, "the second time it is there"


def test_setup_needs_no_venv_module(machine):
    executable(machine.project / "uv.fake", machine.uv)
    pip = "mkdir -p .cache/uv/bin && cp uv.fake .cache/uv/bin/uv"
    executable(machine.bin / "python3", f'case "$*" in *--target*) {pip};; *) exit 1;; esac')
    done = machine.setup()
    assert done.returncode == 0, done.stderr
    assert "sync --frozen" in machine.log


def test_setup_hands_pips_certificate_to_uv_unless_it_has_one(machine):
    executable(machine.bin / "uv", machine.uv)
    executable(machine.bin / "python3", "exit 1")
    machine.setup(PIP_CERT="/pip.crt")
    machine.setup(PIP_CERT="/pip.crt", SSL_CERT_FILE="/uv.crt")
    assert re.findall("cert=(.*)", machine.log) == ["/pip.crt", "/uv.crt"]


def test_a_chosen_python_is_the_environments(machine):
    executable(machine.bin / "uv", machine.uv)
    machine.setup(PYTHON="/opt/python3.12")
    assert "--python /opt/python3.12" in machine.log
