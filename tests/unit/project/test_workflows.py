"""What the workflows run is pinned, and a job has no more rights than are written down here."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import REPOSITORY

FOLDER = REPOSITORY / ".github" / "workflows"
READ = {"contents": "read"}
RIGHTS = {
    ("tests.yml", "ci"): READ,
    ("tests.yml", "images"): READ,
    ("release.yml", "images"): {**READ, "packages": "write", "id-token": "write"},
    ("release.yml", "charts"): {**READ, "packages": "write"},
}
PINNED = re.compile(r"uses:\s*[\w.-]+/[\w./-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+")


def files() -> list[Path]:
    return sorted(path for path in FOLDER.iterdir() if path.suffix in (".yml", ".yaml"))


def faults(name: str, text: str) -> list[str]:
    """What of a workflow is not pinned, and which rights are more or fewer than those of `RIGHTS`."""
    workflow: dict[str, Any] = yaml.safe_load(text)
    lines = [line.strip().removeprefix("- ") for line in text.splitlines() if re.search(r"\buses\s*:", line)]
    found = [f"{name}: {line}" for line in lines if not PINNED.fullmatch(line)]
    used = [step for job in workflow["jobs"].values() for step in [job, *job.get("steps", [])] if "uses" in step]
    if len(used) != len(lines):
        found.append(f"{name}: {len(used)} actions in {len(lines)} lines; write each in a line of its own")
    if workflow.get("permissions") != {}:
        found.append(f"{name}: `permissions: {{}}` for all jobs, and each says its own")
    for title, job in workflow["jobs"].items():
        if job.get("permissions") != RIGHTS.get((name, title)):
            found.append(f"{name}: {title} has {job.get('permissions')}")
    return found


def test_every_action_is_pinned_by_commit_and_every_job_has_the_rights_that_are_named() -> None:
    assert [fault for path in files() for fault in faults(path.name, path.read_text())] == []


def test_the_list_names_no_job_that_is_gone() -> None:
    jobs = {(path.name, job) for path in files() for job in yaml.safe_load(path.read_text())["jobs"]}
    assert jobs == RIGHTS.keys()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (r"checkout@[0-9a-f]{40}  # v5\.\d+\.\d+", "checkout@v5"),
        (r"checkout@[0-9a-f]{40}", "checkout@main"),
        (r"checkout@[0-9a-f]{40}  # v5\.\d+\.\d+", "checkout@" + "0" * 40),
        ("permissions: {}", "permissions: write-all"),
        ("permissions: {}", "permissions: {contents: read}"),
        (r"      id-token: write.*\n", ""),
        (r"      packages: write\n", "      packages: write\n      contents: write\n"),
        (r"    steps:\n", "    steps:\n      - {name: some, uses: some/action@v1}\n"),
    ],
)
def test_a_looser_workflow_is_found(old: str, new: str) -> None:
    text, times = re.subn(old, new, (FOLDER / "release.yml").read_text(), count=1)
    assert times == 1
    assert faults("release.yml", text)


def test_bases_of_images_are_pinned_and_packages_come_from_the_lock() -> None:
    files = sorted(REPOSITORY.glob("Dockerfile.*"))
    assert files
    for file in files:
        text = file.read_text()
        stages = set(re.findall(r"^FROM \S+ AS (\S+)", text, re.MULTILINE))
        for base in re.findall(r"^FROM (\S+)", text, re.MULTILINE):
            argument = re.fullmatch(r"\$\{(\w+)\}", base)
            default = re.search(rf"^ARG {argument[1]}=(\S+)$", text, re.MULTILINE) if argument else None
            named = default[1] if default else base
            ours = named.startswith("ghcr.io/thinkimg/")
            assert named in stages or ours or re.search(r"@sha256:[0-9a-f]{64}$", named), f"{file.name}: {named}"
        assert all("--frozen" in line for line in re.findall(r"/uv/bin/uv sync.*", text)), file.name
        assert all("--no-deps" in line for line in re.findall(r"/uv/bin/uv pip install.*", text)), file.name


def test_a_release_says_what_is_in_it_and_is_signed() -> None:
    steps = yaml.safe_load((FOLDER / "release.yml").read_text())["jobs"]["images"]["steps"]
    (bake,) = (step["with"] for step in steps if step.get("id") == "bake")
    assert (bake["sbom"], bake["provenance"], bake["push"]) == (True, "mode=max", True)
    assert any("cosign sign --yes" in step.get("run", "") for step in steps)
