"""YAML documents with the lines they came from, read as Kubernetes reads them.

PyYAML follows YAML 1.1, where `1e-3` is a string, `12:30` a number, and a repeated key wins silently. kubectl takes the
first for a number, the second for a string, and refuses the third; so does this loader.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .errors import ManifestError, Problem

FLOAT = "tag:yaml.org,2002:float"
INT = "tag:yaml.org,2002:int"
_REPLACED = (FLOAT, INT, "tag:yaml.org,2002:timestamp")


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = {  # noqa: RUF012 - the name and shape are PyYAML's
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in _REPLACED]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver(INT, re.compile(r"^[-+]?(0|[1-9][0-9]*|0x[0-9a-fA-F]+)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    FLOAT,
    re.compile(
        r"^([-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$"
    ),
    list("-+.0123456789"),
)


@dataclass(frozen=True)
class Document:
    """One YAML document: its value, and the nodes that know the lines."""

    value: Any
    node: yaml.Node

    def line(self, loc: Sequence[str | int] = ()) -> int:
        """Line (from 1) of the field at `loc`, or of the deepest part of `loc` that the file has."""
        node, line = self.node, self.node.start_mark.line + 1
        for part in loc:
            found = _child(node, part)
            if found is None:
                break
            line, node = found
        return line


def _child(node: yaml.Node, part: str | int) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == part:
                return key.start_mark.line + 1, value
    elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        item = node.value[part]
        return item.start_mark.line + 1, item
    return None


def read_documents(text: str, source: str) -> list[Document]:
    """All documents of `text` that are not empty. Raises ManifestError for text that is not YAML."""
    documents = []
    try:
        loader = _Loader(text)
        while loader.check_node():
            node = loader.get_node()
            if node is None:
                continue
            _refuse_repeated_keys(node, source)
            value = loader.construct_document(node)
            if value is not None:
                documents.append(Document(value, node))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = f"this is not YAML: {error.problem or error.context}"
        line = mark.line + 1 if mark else None
        raise ManifestError(
            [Problem(source, "", message, "Check indentation, colons and quotes there.", line)], source
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a scalar with a tag it does not fit
        reason = " ".join(str(error).split())
        problem = Problem(source, "", f"this is not YAML: {reason}", "Save the file as UTF-8 text.")
        raise ManifestError([problem], source) from None
    return documents


def read_yaml(path: Path) -> list[Any]:
    """The documents of a YAML or JSON file that are not empty, by the rules of manifests.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not UTF-8, or (ManifestError) not YAML.
    """
    return [document.value for document in read_documents(path.read_text(encoding="utf-8"), path.name)]


def read_value(text: str) -> Any:
    """What a manifest would have behind `key: ` for `text`: `1e3` is a number, `12:30` a text, `no` false.

    Brackets, braces, quotes and `!!tags` are YAML. Anything else is one scalar, whole: unlike in a file, `#` begins no
    comment and `: ` no mapping, for what is written on a command line has none.

    Raises:
        ManifestError: brackets, braces or quotes that are not YAML.
    """
    text = text.strip()
    if text.startswith(("[", "{", "'", '"', "!!")):
        documents = read_documents(text, "value")
        return documents[0].value if documents else None
    resolvers = _Loader.yaml_implicit_resolvers.get(text[:1], ())
    tag = next((tag for tag, pattern in resolvers if pattern.match(text)), None)
    return _Loader("").construct_object(yaml.ScalarNode(tag, text)) if tag in _SCALARS else text


_SCALARS = (FLOAT, INT, "tag:yaml.org,2002:bool", "tag:yaml.org,2002:null")


def _refuse_repeated_keys(node: yaml.Node, source: str) -> None:
    waiting, seen_nodes = [node], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen_nodes:  # an alias
            continue
        seen_nodes.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            lines: dict[Any, int] = {}
            for key, value in node.value:
                line = key.start_mark.line + 1
                if isinstance(key.value, str) and key.value != "<<" and key.value in lines:
                    message = f'the key "{key.value}" is there twice, first in line {lines[key.value]}'
                    raise ManifestError([Problem(source, "", message, "Keep one of them.", line)], source)
                if isinstance(key.value, str):
                    lines[key.value] = line
                waiting.append(value)
