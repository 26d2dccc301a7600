"""Somebody has decided about every field, every field is described, and the reference page says so."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from thinkimg.api.v1alpha1 import ToolRLJob, VisionTool
from thinkimg.api.v1alpha1.fields import TABLES, declared_fields, mutability, row_of
from thinkimg.api.v1alpha1.toolrljob import ToolRLJobStatus
from thinkimg.api.v1alpha1.visiontool import VisionToolStatus

ROOT = Path(__file__).parents[3]
RESOURCES = [VisionTool, ToolRLJob]
Resource = type[VisionTool] | type[ToolRLJob]


@pytest.mark.parametrize("resource", RESOURCES)
def test_every_field_has_a_row(resource: Resource) -> None:
    assert [f.path for f in declared_fields(resource) if row_of(resource, f.path) is None] == []


@pytest.mark.parametrize("resource", RESOURCES)
def test_every_row_is_a_field(resource: Resource) -> None:
    assert set(TABLES[resource]) - {field.path for field in declared_fields(resource)} == set()


@pytest.mark.parametrize("resource", RESOURCES)
def test_whatever_is_not_honoured_has_a_reason(resource: Resource) -> None:
    for path, row in TABLES[resource].items():
        assert bool(row.reason) == ((row.local, row.cluster) != ("honoured", "honoured")), path


@pytest.mark.parametrize("resource", RESOURCES)
def test_every_field_has_a_description_a_type_and_a_mutability(resource: Resource) -> None:
    for field in declared_fields(resource):
        assert field.description.endswith("."), field.path
        assert field.type != "any", field.path
        assert mutability(resource, field.path), field.path


@pytest.mark.parametrize("resource", RESOURCES)
def test_every_number_of_seconds_says_its_unit(resource: Resource) -> None:
    for field in declared_fields(resource):
        if field.path.endswith("Seconds") and field.type in ("integer", "number"):
            assert field.unit == "seconds" if "Milli" not in field.path else "milliseconds", field.path


def test_a_new_field_below_an_honoured_one_is_undecided() -> None:
    assert row_of(ToolRLJob, "spec.stages[].sft.newField") is None
    assert row_of(ToolRLJob, "spec.newField") is None
    ignored = row_of(ToolRLJob, "spec.storage.newField")
    assert ignored is not None
    assert ignored.local == "ignored"


@pytest.mark.parametrize("status", [VisionToolStatus, ToolRLJobStatus])
def test_every_field_of_a_status_is_described(status: type[VisionToolStatus] | type[ToolRLJobStatus]) -> None:
    assert [name for name, field in status.model_fields.items() if not field.description] == []


def test_the_tool_never_changes_and_suspend_always_may() -> None:
    assert mutability(VisionTool, "spec.tool") == "never"
    assert mutability(ToolRLJob, "spec.suspend") == "always"
    assert mutability(ToolRLJob, "spec.stages[].name") == "until status.startTime is set"


def test_the_reference_page_is_up_to_date() -> None:
    generator = runpy.run_path(str(ROOT / "hack" / "generate_manifest_reference.py"))
    page = (ROOT / "docs" / "reference" / "manifest.md").read_text()
    assert page == generator["generate"](), "run: python hack/generate_manifest_reference.py"
