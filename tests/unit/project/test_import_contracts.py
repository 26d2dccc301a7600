"""The import contracts of pyproject.toml: each is kept, and each fails on a planted import. And no circle of modules,
packages' own files included."""

import copy
from typing import Any

import grimp
import pytest
from importlinter import configuration
from importlinter.application import use_cases
from importlinter.domain.contract import Contract, registry

configuration.configure()

PLANTED = {
    "Layers: who may import whom (docs/architecture.md)": [
        ("thinkimg.tools.crop", "thinkimg.agent.agent"),
        ("thinkimg.serving.config", "thinkimg.cli.app"),
        ("thinkimg.serving.config", "thinkimg.training.sft"),
        ("thinkimg.cache", "thinkimg.errors"),
    ],
    "The API package stands alone": [
        ("thinkimg.api.pod_contract", "thinkimg.errors"),
        ("thinkimg.api.v1alpha1.manifest", "thinkimg.gateway.config"),
        ("thinkimg.api.v1alpha1.planted", "thinkimg.made_up"),
    ],
    "Outside of thinkimg.api nobody imports a version of it": [
        ("thinkimg.jobs.layout", "thinkimg.api.v1alpha1.stages"),
        ("thinkimg.training.planted", "thinkimg.api.v1beta1"),
        ("thinkimg_operator.kinds", "thinkimg.api.v1alpha1"),
    ],
    "No circles, of modules or of packages": [
        ("thinkimg.image", "thinkimg.tools.crop"),
        ("thinkimg.api.v1alpha1.rules", "thinkimg.api.v1alpha1.toolrljob"),
        ("thinkimg_operator.kinds", "thinkimg_operator.cluster"),
        ("thinkimg_operator.network", "thinkimg_operator.toolrljob.planted"),
    ],
    "Tools see pixels, never the generator's truth": [("thinkimg.tools.crop", "thinkimg.data.charts")],
    "Tools, their servers, the client and the agent loop run without torch": [("thinkimg.tools.crop", "torch")],
    "The wire and the client know no web framework": [("thinkimg.wire", "fastapi")],
    "Of the runtime the operator knows the API package only": [
        ("thinkimg_operator.toolrljob.render", "thinkimg.errors"),
        ("thinkimg_operator.watch", "thinkimg.gateway.config"),
        ("thinkimg_operator.planted", "thinkimg.made_up"),
        ("thinkimg_operator.planted", "thinkimg"),
    ],
    "Only main.py knows kopf": [
        ("thinkimg_operator.controller", "kopf"),
        ("thinkimg_operator.toolrljob.planted", "kopf"),
        ("thinkimg.jobs.layout", "kopf"),
    ],
}
"""Contract -> imports that break it: of modules that are there, and of ones that somebody adds."""


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("thinkimg", "thinkimg_operator", include_external_packages=True, cache_dir=None)


@pytest.fixture(scope="module")
def contracts() -> dict[str, Contract]:
    options = use_cases.read_user_options(None)
    use_cases._register_contract_types(options)
    made = {}
    for given in options.contracts_options:
        kind = registry.get_contract_class(given["type"])
        made[given["name"]] = kind(given["name"], options.session_options, given)
    return made


def is_kept(contract: Contract, graph: grimp.ImportGraph) -> bool:
    return contract.check(copy.deepcopy(graph), verbose=False).kept


def with_import(graph: grimp.ImportGraph, importer: str, imported: str) -> grimp.ImportGraph:
    """A graph with one more import; its modules are added, below their packages, where they are not there."""
    changed = copy.deepcopy(graph)
    for module in (importer, imported):
        if module not in changed.modules:
            changed.add_module(module, is_squashed="." not in module)
    changed.add_import(importer=importer, imported=imported, line_number=1, line_contents="import planted")
    return changed


def test_every_contract_has_an_offence_to_find(contracts: dict[str, Any]) -> None:
    assert set(contracts) == set(PLANTED)


@pytest.mark.parametrize("name", PLANTED)
def test_the_contract_is_kept(name: str, contracts: dict[str, Contract], graph: grimp.ImportGraph) -> None:
    assert is_kept(contracts[name], graph)


@pytest.mark.parametrize(("name", "offence"), [(name, offence) for name, all in PLANTED.items() for offence in all])
def test_a_planted_import_breaks_it(
    name: str, offence: tuple[str, str], contracts: dict[str, Contract], graph: grimp.ImportGraph
) -> None:
    assert not is_kept(contracts[name], with_import(graph, *offence))


# ---- circles of single modules ---------------------------------------------------------------------------------------


def circles(graph: grimp.ImportGraph) -> list[list[str]]:
    """Modules that reach each other by imports, a package's `__init__` being one of them."""
    reached = {module: graph.find_upstream_modules(module) for module in own_modules(graph)}
    found = {
        frozenset({module, *(up for up in reached[module] if module in reached.get(up, ()))}) for module in reached
    }
    return sorted(sorted(circle) for circle in found if len(circle) > 1)


def own_modules(graph: grimp.ImportGraph) -> set[str]:
    return {module for module in graph.modules if module.partition(".")[0] in ("thinkimg", "thinkimg_operator")}


def test_no_module_imports_itself_on_the_way_round(graph: grimp.ImportGraph) -> None:
    assert circles(graph) == []


@pytest.mark.parametrize(
    ("importer", "imported"),
    [("thinkimg.api.v1alpha1.rules", "thinkimg.api"), ("thinkimg.image", "thinkimg.tools.crop")],
)
def test_a_planted_circle_is_found(importer: str, imported: str, graph: grimp.ImportGraph) -> None:
    (circle,) = circles(with_import(graph, importer, imported))
    assert {importer, imported} <= set(circle)
