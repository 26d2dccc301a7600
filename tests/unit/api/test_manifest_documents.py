"""From a file to documents: what is YAML, what is a resource, what is passed over, and which line is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.api.manifest_examples import JOB, TOOL, changed, problems_of, refusals, setting
from thinkimg.api.v1alpha1 import ManifestError, ToolRLJob, load_manifest, parse_manifest
from thinkimg.api.v1alpha1.yamlsource import read_documents

FILE_REFUSALS = [
    ("an empty file", "", "it declares neither a VisionTool nor a ToolRLJob. See manifests/ for examples."),
    ("nothing but comments", "# nothing\n---\n", "it declares neither a VisionTool nor a ToolRLJob."),
    ("a list", "- 1", "expected a mapping with apiVersion and kind, got a list of 1."),
    ("broken YAML", "a: [1", "this is not YAML: expected ',' or ']'"),
    ("tabs", "a:\n\tb: 1", "this is not YAML: found character '\\t' that cannot start any token."),
    ("a Python object", "a: !!python/object:os.system {}", "this is not YAML: could not determine a constructor"),
    ("a control character", "a: \x00", "this is not YAML: "),
    (
        "a key twice",
        f"{JOB}\n  seed: 1\n  seed: 2\n",
        'the key "seed" is there twice, first in line 17. Keep one of them.',
    ),
    ("no kind", "apiVersion: thinkimg.dev/v1alpha1", "it is missing. Write kind: ToolRLJob."),
    ("no apiVersion", "kind: ToolRLJob", "it is missing. Write apiVersion: thinkimg.dev/v1alpha1."),
    ("a number for a kind", "{apiVersion: v1, kind: 3}", "expected a string, got 3. Write kind: ToolRLJob."),
    (
        "a misspelt kind",
        "{apiVersion: thinkimg.dev/v1alpha1, kind: ToolRlJobs}",
        'there is no kind "ToolRlJobs" in thinkimg.dev/v1alpha1. Did you mean "ToolRLJob"?',
    ),
    (
        "another version",
        "{apiVersion: thinkimg.dev/v1beta1, kind: ToolRLJob}",
        '"thinkimg.dev/v1beta1" is not served. Write apiVersion: thinkimg.dev/v1alpha1.',
    ),
    ("another group", "{apiVersion: v1, kind: VisionTool}", '"v1" has no kind "VisionTool".'),
    ("a tool twice", f"{TOOL}---{TOOL}", "it is there twice, first in line 2. Rename or remove one."),
]


@pytest.mark.parametrize(("text", "said"), [c[1:] for c in FILE_REFUSALS], ids=[c[0] for c in FILE_REFUSALS])
def test_a_file_is_refused_for(text: str, said: str) -> None:
    assert any(said in refusal for refusal in refusals(text)), refusals(text)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="there is no such file"):
        load_manifest(tmp_path / "job.yaml")


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"this is a folder. Name one YAML file."):
        load_manifest(tmp_path)


def test_a_picture(tmp_path: Path) -> None:
    (tmp_path / "chart.png").write_bytes(b"\x89PNG\r\n\xff\xfe")
    with pytest.raises(ManifestError, match="this is not text"):
        load_manifest(tmp_path / "chart.png")


def test_a_refusal_reads_well(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(TOOL + "---" + JOB.replace("from: sft", "from: table"))
    with pytest.raises(ManifestError) as caught:
        load_manifest(file)
    assert str(caught.value) == (
        f"{file}: 1 problem\n"
        '  line 19: ToolRLJob/demo: spec.stages[2].from: "table" is a later stage. '
        "Name an earlier stage of type SFT or GRPO, or base: base, sft."
    )


def test_a_missing_field_names_the_line_of_its_mapping() -> None:
    with pytest.raises(ManifestError) as caught:
        parse_manifest(JOB.replace("model: {uri: preset://tiny}", "model: {}"))
    assert [problem.line for problem in caught.value.problems] == [6]


def test_tools_and_jobs_are_found_by_name_and_other_groups_are_kept_aside() -> None:
    secret = "{apiVersion: v1, kind: Secret, metadata: {name: hub}}"
    manifest = parse_manifest(f"{TOOL}---\n{secret}\n---{JOB}---\n")
    assert list(manifest.tools) == ["ocr"]
    assert [job.name for job in manifest.jobs] == ["demo"]
    assert manifest.others == ["Secret/hub"]


def test_the_only_job_needs_no_name() -> None:
    manifest = parse_manifest(f"{JOB}---{JOB.replace('{name: demo}', '{name: other}')}")
    assert parse_manifest(JOB).job().name == "demo"
    assert manifest.job("other").name == "other"
    with pytest.raises(ManifestError, match="the file has 2 ToolRLJobs, not one"):
        manifest.job()
    with pytest.raises(ManifestError, match=r'there is no ToolRLJob "othr"\. Did you mean "other"'):
        manifest.job("othr")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("2E5", 2e5),
        ("1.5", 1.5),
        ("-7", -7),
        ("12:30", "12:30"),
        ("2026-11-01", "2026-11-01"),
    ],
)
def test_scalars_are_read_as_kubernetes_reads_them(text: str, value: object) -> None:
    assert read_documents(f"a: {text}", "x")[0].value == {"a": value}


def test_anchors_and_merge_keys_work() -> None:
    (document,) = read_documents("a: &x {p: 1, q: 2}\nb: {<<: *x, q: 3}", "x")
    assert document.value["b"] == {"p": 1, "q": 3}


def test_a_job_that_the_api_server_returns_is_understood() -> None:
    """Server-side metadata and a status do not get in the way, and times come back as they went."""
    live = changed(
        JOB,
        setting("metadata.uid", "0f"),
        setting("metadata.resourceVersion", "12"),
        setting("metadata.creationTimestamp", "2026-11-01T10:00:00Z"),
        setting("metadata.managedFields", [{"manager": "kubectl"}]),
        setting("status.startTime", "2026-11-01T10:00:05Z"),
        setting("status.stages", [{"name": "sft", "state": "Running", "progress": {"step": 3}}]),
        setting("status.conditions", [{"type": "Accepted", "status": "True", "reason": "Valid"}]),
    )
    job = parse_manifest(live).job()
    assert job.status is not None
    assert job.model_dump(mode="json")["status"]["startTime"] == "2026-11-01T10:00:05Z"


PLACES = [
    *("metadata", "metadata.name", "spec", "spec.model", "spec.model.uri", "spec.tools", "spec.tools.0", "spec.data"),
    *("spec.data.train.uri", "spec.stages", "spec.stages.0", "spec.stages.1.sft", "spec.stages.1.sft.args", "spec.env"),
    *("spec.stages.2.grpo.rewards", "spec.stages.3.evaluate.models", "spec.failurePolicy", "spec.storage", "status"),
    *("kind", "apiVersion", "spec.stages.0.synthesize.planner", "spec.seeds", "spec.podTemplatePatch"),
]
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None)  # a busy machine is not a slow function
@given(place=st.sampled_from(PLACES), value=ANYTHING)
def test_whatever_stands_anywhere_is_taken_or_refused_with_words(place: str, value: object) -> None:
    for problem in problems_of(changed(JOB, setting(place, value))):
        assert problem.message
        assert problem.remedy


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1),
    batch=st.integers(1, 64),
    rate=st.floats(1e-9, 1.0),
    weights=st.lists(st.floats(-10, 10), min_size=1, max_size=2),
    gate=st.none() | st.floats(0, 1),
)
def test_a_job_survives_writing_and_reading(
    seed: int, batch: int, rate: float, weights: list[float], gate: float | None
) -> None:
    rewards = [{"name": name, "weight": weight} for name, weight in zip(("accuracy", "format"), weights, strict=False)]
    changes = [
        setting("spec.seed", seed),
        setting("spec.stages.1.sft.batchSize", batch),
        setting("spec.stages.1.sft.learningRate", rate),
        setting("spec.stages.2.grpo.rewards", rewards),
    ]
    if gate is not None:
        changes.append(setting("spec.stages.1.sft.gate", {"minSampledAccuracy": gate}))
    job = parse_manifest(changed(JOB, *changes)).job()
    assert ToolRLJob.model_validate_json(job.model_dump_json()) == job
    assert ToolRLJob.model_validate(job.model_dump(mode="json", exclude_none=True)) == job
