"""What a stage is given, from the manifest."""

import yaml

from thinkimg.api.v1alpha1 import parse_manifest
from thinkimg.jobs.stages.context import Context, call_seconds_of

VERSION = "thinkimg.dev/v1alpha1"


def tool(name: str, tool_name: str, seconds: float) -> dict[str, object]:
    spec = {"tool": tool_name, "callTimeoutSeconds": seconds}
    return {"apiVersion": VERSION, "kind": "VisionTool", "metadata": {"name": name}, "spec": spec}


def job(name: str, *tools: str) -> dict[str, object]:
    spec = {
        "model": {"uri": "preset://tiny"},
        "data": {"train": {"uri": "mine.jsonl"}},
        "tools": [{"name": tool} for tool in tools],
        "stages": [{"name": "sft", "type": "SFT", "sft": {}}],
    }
    return {"apiVersion": VERSION, "kind": "ToolRLJob", "metadata": {"name": name}, "spec": spec}


def test_a_call_may_take_as_long_as_the_slowest_tool_of_the_job() -> None:
    documents = [
        tool("ocr", "OCR", 45),
        tool("point", "Point", 12),
        tool("slow", "Crop", 300),
        job("both", "ocr", "point"),
        job("one", "point"),
        job("none"),
    ]
    manifest = parse_manifest(yaml.safe_dump_all(documents))
    found = {name: call_seconds_of(manifest, manifest.job(name)) for name in ("both", "one", "none")}
    assert found == {"both": 45, "one": 12, "none": Context.call_seconds}
