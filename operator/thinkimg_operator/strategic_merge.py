"""Strategic merge of a patch into a pod template: `podTemplatePatch`, with the rules of `kubectl patch`.

No Python library does it. Of Kubernetes' rules only the list keys depend on the type, and those of a pod template fit
on a page. Source of table and rules: `patchMergeKey` in k8s.io/api/core/v1/types.go, and
k8s.io/apimachinery/pkg/util/strategicpatch.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

Value = dict[str, Any]

MERGE_KEYS: dict[str, str] = {
    "containers": "name",
    "initContainers": "name",
    "ephemeralContainers": "name",
    "env": "name",
    "ports": "containerPort",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "volumes": "name",
    "imagePullSecrets": "name",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
    "schedulingGates": "name",
    "resourceClaims": "name",
}
"""Lists of a pod template whose elements are merged, with the field that identifies an element. Every other list is
replaced as a whole."""


class PatchError(ValueError):
    """The patch cannot be merged. The text names the place."""


def merge_pod_template(template: Value, patch: Value) -> Value:
    """`template` with `patch` merged into it; neither is changed.

    `null` removes a field. Directives: `$patch: delete` removes an element of a list or the content of a mapping,
    `$patch: replace` keeps nothing but the patch, `$retainKeys` lists the fields to keep.

    Raises:
        PatchError: an element of a merged list lacks its key, a directive is not one of these, or a list or mapping
            meets something else.
    """
    return _merge_mapping(template, patch, "podTemplatePatch")


def _merge_mapping(original: Value, patch: Value, place: str) -> Value:
    unknown = [name for name in patch if name.startswith("$") and name not in ("$patch", "$retainKeys")]
    if unknown:
        raise PatchError(f"{place}: the directive {unknown[0]} is not supported; $patch and $retainKeys are")
    directive = patch.get("$patch", "merge")
    if directive not in ("merge", "replace", "delete"):
        raise PatchError(f"{place}: $patch is delete, replace or merge, not {directive!r}")
    if directive != "merge":
        return {} if directive == "delete" else {name: deepcopy(patch[name]) for name in patch if name != "$patch"}
    retained = patch.get("$retainKeys", original)
    merged = {name: deepcopy(value) for name, value in original.items() if name in retained}
    for name, value in patch.items():
        if name.startswith("$"):
            continue
        if value is None:
            merged.pop(name, None)
        elif merged.get(name) is None:
            merged[name] = _added(value)
        else:
            merged[name] = _merge_value(name, merged[name], value, f"{place}.{name}")
    return merged


def _merge_value(name: str, original: Any, patch: Any, place: str) -> Any:
    for kind, word in ((dict, "mapping"), (list, "list")):
        if isinstance(original, kind) != isinstance(patch, kind):
            raise PatchError(f"{place}: {'not ' if isinstance(patch, kind) else ''}a {word} is expected")
    if isinstance(patch, dict):
        return _merge_mapping(original, patch, place)
    if isinstance(patch, list) and name in MERGE_KEYS:
        return _merge_list(MERGE_KEYS[name], original, patch, place)
    return deepcopy(patch)


def _merge_list(key: str, original: list[Value], patch: list[Any], place: str) -> list[Value]:
    for index, element in enumerate(patch):
        if not isinstance(element, dict) or (key not in element and element.get("$patch") != "replace"):
            raise PatchError(f"{place}[{index}]: an element without {key}, by which the list is merged")
    if any(element.get("$patch") == "replace" for element in patch):
        original, patch = [], [element for element in patch if element.get("$patch") != "replace"]
    removed = [element[key] for element in patch if element.get("$patch") == "delete"]
    patch = [element for element in patch if element.get("$patch") != "delete"]
    merged = {element[key]: element for element in original if element[key] not in removed}
    for element in patch:
        before = merged.get(element[key])
        merged[element[key]] = (
            _added(element) if before is None else _merge_mapping(before, element, f"{place}[{element[key]}]")
        )
    return _in_order(merged, [element[key] for element in patch], [element[key] for element in original])


def _in_order(merged: dict[Any, Value], patched: list[Any], original: list[Any]) -> list[Value]:
    """Elements of the patch in its order, between those that only the original has (`mergeSortedSlice`)."""
    ours = list(dict.fromkeys(patched))
    left = [name for name in original if name in merged and name not in ours]
    result = []
    while left or ours:
        before = left and ours and ours[0] in original and original.index(left[0]) < original.index(ours[0])
        result.append(merged[(left if before or not ours else ours).pop(0)])
    return result


def _added(value: Any) -> Any:
    """The patch's value where the original has none: without directives and nulls."""
    if isinstance(value, dict):
        return {
            name: _added(inner)
            for name, inner in value.items()
            if not name.startswith("$") and inner is not None and not _deletes(inner)
        }
    if isinstance(value, list):
        return [_added(element) for element in value if not _deletes(element)]
    return value


def _deletes(value: Any) -> bool:
    return isinstance(value, dict) and value.get("$patch") == "delete"
