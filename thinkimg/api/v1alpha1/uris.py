"""Where models, data and weights come from: the URI schemes and what each may look like."""

from __future__ import annotations

import re
from collections.abc import Iterable

from .resource import Checked, Rule, refuse, suggestion

PRESETS = ("tiny",)

# Written so that Python's re and the API server's RE2 read them alike.
_HUB = re.compile(r"hf://[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*")
_HUB_DATA = re.compile(rf"{_HUB.pattern}(\?[^ \t\r\n]*)?")
_CLAIM = re.compile(r"pvc://[a-z0-9]([a-z0-9.-]*[a-z0-9])?(/[^ \t\r\n/]+)*/?")
_CHARTS = re.compile(r"charts://[A-Za-z0-9_./-]*(\?[^ \t\r\n]*)?")
_RELATIVE = re.compile(r"[^ \t\r\n/:][^:]*")
_PATH = re.compile(r"[^ \t\r\n:]([^\t\r\n:]*[^ \t\r\n:])?")
_ENDPOINT = re.compile(r"https?://[^ \t\r\n/]+(/[^ \t\r\n]*)?")


_MODELS = "hf://org/name, pvc://claim/path or preset://tiny"
_DATA = "hf://org/name, pvc://claim/path, charts://?key=value or a relative path"
_WEIGHTS = "hf://org/name or pvc://claim/path"
_ENDPOINTS = "an http:// or https:// address, as in http://127.0.0.1:8000/v1"


def scheme_of(uri: str) -> str:
    """`hf`, `pvc`, `preset`, `charts`; empty for a relative path."""
    return uri.split("://", 1)[0] if "://" in uri else ""


def model_uri(uri: str) -> str:
    """Check of `spec.model.uri`. Here a path is let through: a run on this machine may name a folder; `submit` and the
    API server's rule refuse it."""
    if scheme_of(uri) == "preset":
        preset = uri.removeprefix("preset://")
        if preset not in PRESETS:
            refuse(f'there is no preset "{preset}"', suggestion(preset, PRESETS))
        return uri
    return _matching(uri, (_HUB, _CLAIM, _PATH), f"{_MODELS}, or for a local run a folder")


def data_uri(uri: str) -> str:
    """Check of `spec.data.*.uri`."""
    if ".." in uri.split("/"):
        refuse(f'"{uri}" leaves the storage root', "Name a path below the storage root, without '..'.")
    patterns = {"hf": _HUB_DATA, "pvc": _CLAIM, "charts": _CHARTS, "": _RELATIVE}
    pattern = patterns.get(scheme_of(uri))
    return _matching(uri, (pattern,) if pattern else (), _DATA)


def weights_uri(uri: str) -> str:
    """Check of `spec.weights.uri` of a VisionTool."""
    return _matching(uri, (_HUB, _CLAIM), _WEIGHTS)


def endpoint_url(url: str) -> str:
    """Check of the address of an OpenAI-compatible endpoint."""
    return _matching(url, (_ENDPOINT,), _ENDPOINTS)


def _matching(uri: str, patterns: tuple[re.Pattern[str], ...], expected: str) -> str:
    if not any(pattern.fullmatch(uri) for pattern in patterns):
        refuse(f'"{uri}" is not understood', f"Write {expected}.")
    return uri


def _rule(patterns: Iterable[re.Pattern[str]], expected: str) -> Rule:
    alternatives = "|".join(pattern.pattern for pattern in patterns)
    return Rule(f"self.matches(r'^({alternatives})$')", f"it is not understood. Write {expected}.")


MODEL_URI = Checked(model_uri, (_rule((_HUB, _CLAIM, re.compile(f"preset://({'|'.join(PRESETS)})")), _MODELS),))
DATA_URI = Checked(
    data_uri,
    (
        _rule((_HUB_DATA, _CLAIM, _CHARTS, _RELATIVE), _DATA),
        Rule(
            "!self.split('/').exists(part, part == '..')",
            "it leaves the storage root. Name a path below the storage root, without '..'.",
        ),
    ),
)
WEIGHTS_URI = Checked(weights_uri, (_rule((_HUB, _CLAIM), _WEIGHTS),))
ENDPOINT_URL = Checked(endpoint_url, (_rule((_ENDPOINT,), _ENDPOINTS),))
