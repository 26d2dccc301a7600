"""One YAML file with several documents: the VisionTools and the ToolRLJob that uses them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from .errors import ManifestError, Problem
from .explain import explain, shown
from .meta import API_VERSION, GROUP
from .resource import path_of, suggestion
from .toolrljob import ToolRLJob
from .visiontool import VisionTool
from .yamlsource import Document, read_documents

Resource = VisionTool | ToolRLJob
KINDS: dict[str, type[VisionTool] | type[ToolRLJob]] = {"VisionTool": VisionTool, "ToolRLJob": ToolRLJob}


@dataclass
class Manifest:
    """What a file declares, valid as it stands; `check_local` says whether this machine can do it."""

    source: str
    """The file's path as the user gave it; `<text>` when there was no file."""
    tools: dict[str, VisionTool] = field(default_factory=dict)
    """VisionTools by name, in the file's order."""
    jobs: list[ToolRLJob] = field(default_factory=list)
    """ToolRLJobs in the file's order."""
    others: list[str] = field(default_factory=list)
    """Documents of other API groups, `Secret/hub`: kubectl applies them, a local run passes over them."""
    documents: dict[str, Document] = field(default_factory=dict, repr=False)
    """`ToolRLJob/demo` → its YAML, for lines in messages."""

    @property
    def folder(self) -> Path:
        """The file's folder: the storage root of a local run."""
        return Path(self.source).parent

    def job(self, name: str | None = None) -> ToolRLJob:
        """The ToolRLJob called `name`, or the only one. Raises ManifestError when there is none or a choice."""
        names = [job.name for job in self.jobs]
        if name is None and len(self.jobs) == 1:
            return self.jobs[0]
        if name in names:
            return self.jobs[names.index(name)]
        message = (
            f'there is no ToolRLJob "{name}"' if name else f"the file has {len(names) or 'no'} ToolRLJobs, not one"
        )
        raise ManifestError([Problem(self.source, "", message, suggestion(name or "", names))], self.source)

    def tools_of(self, job: ToolRLJob) -> list[VisionTool]:
        """Those VisionTools of the file that the job uses; on a cluster others may be there without the file."""
        return [self.tools[tool.name] for tool in job.spec.tools if tool.name in self.tools]

    def problem(self, document: str, loc: tuple[str | int, ...], message: str, remedy: str) -> Problem:
        """A Problem of a document of this file, with its line."""
        known = self.documents.get(document)
        return Problem(document, path_of(loc), message, remedy, known.line(loc) if known else None)


def load_manifest(path: str | Path, own_tools: Collection[str] = ()) -> Manifest:
    """Read and check a manifest file.

    Args:
        own_tools: names of tools that are not ThinkIMG's and can be served here all the same, without an image.

    Raises:
        ManifestError: with every problem in the file.
    """
    source = str(path)
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise _unreadable(source, "there is no such file", "Check the path; examples are in manifests/.") from None
    except IsADirectoryError:
        raise _unreadable(source, "this is a folder", "Name one YAML file.") from None
    except UnicodeDecodeError:
        raise _unreadable(source, "this is not text", "A manifest is YAML in UTF-8.") from None
    except OSError as error:
        raise _unreadable(source, f"it cannot be read ({error.strerror})", "Check its permissions.") from None
    return parse_manifest(text, source, own_tools)


def parse_manifest(text: str, source: str = "<text>", own_tools: Collection[str] = ()) -> Manifest:
    """As `load_manifest`, from YAML text."""
    manifest = Manifest(source)
    problems: list[Problem] = []
    for document in read_documents(text, source):
        problems += _add(manifest, document, own_tools)
    if not problems and not (manifest.tools or manifest.jobs):
        problems.append(
            Problem(source, "", "it declares neither a VisionTool nor a ToolRLJob", "See manifests/ for examples.")
        )
    if problems:
        raise ManifestError(sorted(problems, key=lambda problem: problem.line or 0), source)
    return manifest


def _unreadable(source: str, message: str, remedy: str) -> ManifestError:
    return ManifestError([Problem(source, "", message, remedy)], source)


def _add(manifest: Manifest, document: Document, own_tools: Collection[str]) -> list[Problem]:
    """Add one document to the manifest; the problems when it cannot be."""
    value = document.value
    if not isinstance(value, dict):
        message = f"expected a mapping with apiVersion and kind, got {shown(value)}"
        return [Problem(manifest.source, "", message, "Separate documents by a line `---`.", document.line())]
    name = _name(value)
    wrong = _wrong_kind(value)
    if wrong:
        loc, message, remedy = wrong
        return [Problem(name or manifest.source, loc, message, remedy, document.line((loc,)))]
    if not str(value["apiVersion"]).startswith(f"{GROUP}/"):
        manifest.others.append(name)
        return []
    if name in manifest.documents:
        first = manifest.documents[name].line()
        message = f"it is there twice, first in line {first}"
        return [Problem(name, "metadata.name", message, "Rename or remove one.", document.line(("metadata", "name")))]
    manifest.documents[name] = document
    kind = KINDS[value["kind"]]
    try:
        resource: Resource = kind.model_validate(value, context={"own_tools": own_tools}, by_alias=True, by_name=False)
    except ValidationError as error:
        return [manifest.problem(name, v.loc, v.message, v.remedy) for v in explain(error, kind)]
    if isinstance(resource, VisionTool):
        manifest.tools[resource.name] = resource
    else:
        manifest.jobs.append(resource)
    return []


def _name(value: dict[str, Any]) -> str:
    metadata = value.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return f"{value.get('kind', '?')}/{name}" if name else str(value.get("kind", ""))


def _wrong_kind(value: dict[str, Any]) -> tuple[str, str, str] | None:
    """Field, message and remedy when the document says no kind that is known here."""
    version, kind = value.get("apiVersion"), value.get("kind")
    for field_name, given, example in (("apiVersion", version, API_VERSION), ("kind", kind, "ToolRLJob")):
        if not isinstance(given, str) or not given:
            message = "it is missing" if given is None else f"expected a string, got {shown(given)}"
            return field_name, message, f"Write {field_name}: {example}."
    if version.split("/")[0] == GROUP and version != API_VERSION:  # type: ignore[union-attr]
        return "apiVersion", f'"{version}" is not served', f"Write apiVersion: {API_VERSION}."
    if version == API_VERSION and kind not in KINDS:
        return "kind", f'there is no kind "{kind}" in {API_VERSION}', suggestion(str(kind), KINDS)
    if kind in KINDS and version != API_VERSION:
        return "apiVersion", f'"{version}" has no kind "{kind}"', f"Write apiVersion: {API_VERSION}."
    return None
