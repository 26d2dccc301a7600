"""What a local run refuses, what it ignores with a warning, and that it says nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.api.manifest_examples import JOB, TOOL, Change, changed, setting
from thinkimg.api.v1alpha1 import check_local, load_manifest, parse_manifest
from thinkimg.api.v1alpha1.local import LocalCheck
from thinkimg.api.v1alpha1.visiontool import VisionToolSpec


def check(job: Change | None = None, tool: Change | None = None, **options: Any) -> LocalCheck:
    tool_text = changed(TOOL, tool) if tool else TOOL
    job_text = changed(JOB, job) if job else JOB
    return check_local(parse_manifest(f"{tool_text}---\n{job_text}"), **options)


def test_an_ordinary_file_gives_no_word() -> None:
    assert check() == LocalCheck()


REFUSED_JOBS = [
    (
        "a tool that the file lacks",
        setting("spec.tools", [{"name": "ocrr"}]),
        'this file has no VisionTool "ocrr". Did',
    ),
    ("suspension", setting("spec.suspend", True), "spec.suspend: it cannot be used in a local run. A local run begins"),
    ("a volume as a model", setting("spec.model.uri", "pvc://c/m"), 'spec.model.uri: "pvc://c/m" is a volume of a'),
    ("a volume of data", setting("spec.data.test.uri", "pvc://c/d"), 'spec.data.test.uri: "pvc://c/d" is a volume'),
    (
        "data that is not there",
        setting("spec.data.train.uri", "no/such"),
        'spec.data.train.uri: there is no "no/such" in',
    ),
    (
        "a secret without a folder of secrets",
        setting("spec.model.secretRef", {"name": "hub"}),
        "DIR/hub/token and give",
    ),
    (
        "a variable from a secret without a folder of secrets",
        setting("spec.env", [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]),
        "spec.env[0].valueFrom: a local run has no Secrets. Write the secret to a file DIR/s/k",
    ),
    (
        "variables of a secret without a folder of secrets",
        setting("spec.secretRefs", [{"name": "wandb"}]),
        "spec.secretRefs[0]: a local run has no Secrets. Write one file DIR/wandb/VARIABLE for each",
    ),
    (
        "SFT on what is not a file of trajectories",
        lambda job: (
            job["spec"]["data"]["train"].update(uri="questions.csv"),
            job["spec"].update(stages=[{"name": "sft", "type": "SFT", "sft": {}}]),
        ),
        'spec.stages[0].sft: "questions.csv" is not a file of trajectories',
    ),
]


@pytest.mark.parametrize(("change", "said"), [c[1:] for c in REFUSED_JOBS], ids=[c[0] for c in REFUSED_JOBS])
def test_a_local_run_refuses(change: Change, said: str) -> None:
    found = check(job=change)
    assert any(said in str(problem) for problem in found.problems), found
    assert all(problem.line for problem in found.problems)


def test_a_local_run_refuses_a_container() -> None:
    found = check(tool=setting("spec", {"tool": "Custom", "image": "x"}))
    assert [problem.path for problem in found.problems] == ["spec.tool"]


def test_weights_of_the_hub_are_honoured_and_those_of_a_volume_refused() -> None:
    weights = {"uri": "hf://a/b", "revision": "v1", "claimName": "cache"}
    found = check(tool=setting("spec.weights", weights))
    assert found.problems == []
    assert [problem.path for problem in found.warnings] == ["spec.weights.claimName"]
    found = check(tool=setting("spec.weights", {"uri": "pvc://models/sam"}))
    assert [problem.path for problem in found.problems] == ["spec.weights.uri"]
    found = check(tool=setting("spec.weights", {"uri": "hf://a/b", "secretRef": {"name": "hub", "key": "token"}}))
    assert [problem.path for problem in found.problems] == ["spec.weights.secretRef"]


@pytest.mark.parametrize(
    ("weights", "options", "served"),
    [
        (None, {"device": "cpu"}, {"device": "cpu"}),
        ({"uri": "hf://a/b", "revision": "v1"}, {}, {"weights": "hf://a/b", "revision": "v1"}),
        ({"uri": "pvc://claim/sam/vit_b.pth"}, {}, {"weights": "/weights/sam/vit_b.pth"}),
        ({"uri": "pvc://claim"}, {"dtype": "bfloat16"}, {"weights": "/weights", "dtype": "bfloat16"}),
        ({"claimName": "cache"}, {"weights": "/own"}, {"weights": "/own"}),
    ],
)
def test_a_server_is_told_where_its_weights_are(weights: object, options: object, served: object) -> None:
    spec = VisionToolSpec.model_validate({"tool": "SAM", "weights": weights, "options": options})
    assert spec.server_options("/weights") == served


def test_a_tool_that_is_not_installed_is_refused_when_the_caller_knows() -> None:
    found = check(available_tools={"Crop": ["builtin"], "Point": ["layout"]})
    assert [str(problem) for problem in found.problems] == [
        'line 5: VisionTool/ocr: spec.tool: "OCR" cannot be served by this installation. Available are: Crop, Point.'
    ]
    assert check(available_tools={"OCR": ["rapidocr"]}).problems == []


def test_a_backend_that_is_not_installed_is_refused_when_the_caller_knows() -> None:
    found = check(tool=setting("spec.backend", "rapid-ocr"), available_tools={"OCR": ["rapidocr"]})
    assert [f"{problem.path}: {problem.message}. {problem.remedy}" for problem in found.problems] == [
        'spec.backend: OCR has no backend "rapid-ocr" in this installation. Did you mean "rapidocr"?'
    ]


IGNORED = [
    (setting("spec.env", [{"name": "A", "valueFrom": {"fieldRef": {}}}]), "spec.env[0].valueFrom"),
    (setting("spec.stages.1.resources", {"limits": {"nvidia.com/gpu": 1}}), "spec.stages[1].resources"),
    (setting("spec.failurePolicy.maxRestarts", 9), "spec.failurePolicy"),
    (setting("spec.storage.size", "1Gi"), "spec.storage"),
    (setting("spec.scheduling.gang", "Volcano"), "spec.scheduling"),
    (setting("spec.managedBy", "example.com/other"), "spec.managedBy"),
    (setting("spec.stages.0.procsPerNode", 2), "spec.stages[0].procsPerNode"),
]


@pytest.mark.parametrize(("change", "path"), IGNORED, ids=[path for _, path in IGNORED])
def test_a_local_run_warns_of(change: Change, path: str) -> None:
    found = check(job=change)
    assert [warning.path for warning in found.warnings] == [path]
    assert found.problems == []


def test_a_default_that_is_written_out_needs_no_warning() -> None:
    assert (
        check(job=setting("spec.failurePolicy", {"maxRestarts": 3}), tool=setting("spec.replicas", 1)) == LocalCheck()
    )


def test_replicas_and_images_of_tools_are_ignored() -> None:
    found = check(
        tool=setting("spec", {"tool": "OCR", "replicas": 3, "image": "x", "auth": {"secretRef": {"name": "k"}}})
    )
    assert [warning.path for warning in found.warnings] == ["spec.replicas", "spec.image", "spec.auth"]
    assert found.problems == []


def test_a_secret_is_a_file(tmp_path: Path) -> None:
    change = setting("spec.model.secretRef", {"name": "hub"})
    assert "there is no file" in str(check(job=change, secrets_dir=tmp_path).problems[0])
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "token").write_text("x")
    assert check(job=change, secrets_dir=tmp_path).problems == []


def test_variables_of_a_secret_are_the_files_of_a_folder(tmp_path: Path) -> None:
    change = setting("spec.secretRefs", [{"name": "wandb"}])
    assert "there is no folder" in str(check(job=change, secrets_dir=tmp_path).problems[0])
    (tmp_path / "wandb").mkdir()
    assert check(job=change, secrets_dir=tmp_path) == LocalCheck()


def test_the_number_of_resamples_is_honoured() -> None:
    assert check(job=setting("spec.stages.3.evaluate.bootstrap", 500)) == LocalCheck()


def test_relative_data_is_looked_up_beside_the_manifest(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(f"{TOOL}---\n{changed(JOB, setting('spec.data.train.uri', 'data/train.jsonl'))}")
    assert len(check_local(load_manifest(file)).problems) == 1
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.jsonl").touch()
    assert check_local(load_manifest(file)).problems == []


def test_documents_of_other_groups_are_passed_over_with_a_warning() -> None:
    secret = "{apiVersion: v1, kind: Secret, metadata: {name: hub}}"
    found = check_local(parse_manifest(f"{TOOL}---\n{secret}"))
    assert [str(warning) for warning in found.warnings] == [
        "Secret/hub: it is passed over: a local run knows ThinkIMG's resources only. kubectl applies it."
    ]
