"""Where models, data and weights come from: the URI schemes and what each may look like."""

from __future__ import annotations

import re

from .resource import refuse, suggestion

PRESETS = ("tiny",)

_HUB = re.compile(r"hf://[\w.-]+(/[\w.-]+)*")
_HUB_DATA = re.compile(rf"{_HUB.pattern}(\?\S*)?")
_CLAIM = re.compile(r"pvc://[a-z0-9]([a-z0-9.-]*[a-z0-9])?(/[^\s/]+)*/?")
_CHARTS = re.compile(r"charts://[\w./-]*(\?\S*)?")
_RELATIVE = re.compile(r"[^\s/:][^:]*")


def scheme_of(uri: str) -> str:
    """`hf`, `pvc`, `preset`, `charts`; empty for a relative path."""
    return uri.split("://", 1)[0] if "://" in uri else ""


def model_uri(uri: str) -> str:
    """Check of `spec.model.uri`."""
    if scheme_of(uri) == "preset":
        preset = uri.removeprefix("preset://")
        if preset not in PRESETS:
            refuse(f'there is no preset "{preset}"', suggestion(preset, PRESETS))
        return uri
    return _matching(uri, (_HUB, _CLAIM), "hf://org/name, pvc://claim/path or preset://tiny")


def data_uri(uri: str) -> str:
    """Check of `spec.data.*.uri`."""
    if ".." in uri.split("/"):
        refuse(f'"{uri}" leaves the storage root', "Name a path below the storage root, without '..'.")
    patterns = {"hf": _HUB_DATA, "pvc": _CLAIM, "charts": _CHARTS, "": _RELATIVE}
    pattern = patterns.get(scheme_of(uri))
    return _matching(
        uri, (pattern,) if pattern else (), "hf://org/name, pvc://claim/path, charts://?key=value or a relative path"
    )


def weights_uri(uri: str) -> str:
    """Check of `spec.weights.uri` of a VisionTool."""
    return _matching(uri, (_HUB, _CLAIM), "hf://org/name or pvc://claim/path")


def endpoint_url(url: str) -> str:
    """Check of the address of an OpenAI-compatible endpoint."""
    return _matching(
        url, (re.compile(r"https?://[^\s/]+(/\S*)?"),), "an http:// or https:// address, as in http://127.0.0.1:8000/v1"
    )


def _matching(uri: str, patterns: tuple[re.Pattern[str], ...], expected: str) -> str:
    if not any(pattern.fullmatch(uri) for pattern in patterns):
        refuse(f'"{uri}" is not understood', f"Write {expected}.")
    return uri
