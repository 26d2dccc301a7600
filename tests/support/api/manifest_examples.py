"""A small valid job and tool, which the tests break in one place at a time."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import yaml

from thinkimg.api.v1alpha1 import ManifestError, Problem, parse_manifest

TOOL = """
apiVersion: thinkimg.dev/v1alpha1
kind: VisionTool
metadata: {name: ocr}
spec: {tool: OCR, replicas: 1}
"""

JOB = """
apiVersion: thinkimg.dev/v1alpha1
kind: ToolRLJob
metadata: {name: demo}
spec:
  model: {uri: preset://tiny}
  tools: [{name: ocr}]
  data:
    train: {uri: "charts://?questions=10"}
    test: {uri: "charts://?questions=10"}
  stages:
    - {name: cold, type: Synthesize, synthesize: {trajectories: 10}}
    - {name: sft, type: SFT, sft: {maxSteps: 2, batchSize: 4}}
    - {name: rl, type: GRPO, from: sft, grpo: {promptsPerStep: 4}}
    - {name: table, type: Evaluate, evaluate: {models: [base, sft, rl]}}
"""

Change = Callable[[dict[str, Any]], None]


def setting(path: str, value: Any) -> Change:
    """A change that writes `value` at a path as in `spec.stages.2.from`."""

    def change(document: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        node: Any = document
        for part in parents:
            node = node[int(part)] if isinstance(node, list) else node.setdefault(part, {})
        node[int(last) if isinstance(node, list) else last] = value

    return change


def without(path: str) -> Change:
    """A change that removes the field at `path`."""

    def change(document: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        node: Any = document
        for part in parents:
            node = node[int(part)] if isinstance(node, list) else node[part]
        del node[last]

    return change


def changed(text: str, *changes: Change) -> str:
    document = copy.deepcopy(yaml.safe_load(text))
    for change in changes:
        change(document)
    return yaml.safe_dump(document, sort_keys=False)


def problems_of(text: str) -> list[Problem]:
    """Every problem of a manifest; none when it is valid."""
    try:
        parse_manifest(text)
    except ManifestError as refusal:
        return refusal.problems
    return []


def refusals(text: str) -> list[str]:
    """`path: message. remedy` of every problem of a manifest that must be refused."""
    texts = [f"{p.path}: {p.message}. {p.remedy}" for p in problems_of(text)]
    assert texts, "the manifest was accepted"
    return texts
