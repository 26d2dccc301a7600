"""Words of the contract between operator and pods stand in `thinkimg.api.pod_contract` and `server_contract` only.

Read from the syntax trees of both packages; docstrings and sentences that only mention a word are no offence.
"""

import ast
import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from thinkimg.api import pod_contract, server_contract

ROOT = Path(__file__).parents[3]
CONTRACT = {ROOT / "thinkimg/api/pod_contract.py", ROOT / "thinkimg/api/server_contract.py"}

ALLOWED = {
    "thinkimg/api/v1alpha1/pods.py": {"THINKIMG_", "PET_"},  # prefixes that a manifest's `env` must not use
    "thinkimg/cli/view.py": {"THINKIMG_VIEW_TOKEN"},  # the rest is between a person's shell and one command
    "thinkimg/gateway/fleet.py": {"THINKIMG_SERVER_KEY_"},
    "thinkimg/gateway/app.py": {"/livez", "/readyz", "/metrics"},  # the gateway's interface, which a chart probes
    "thinkimg/gateway/gate.py": {"/livez", "/readyz"},
    "thinkimg/gateway/openapi.py": {"/livez", "/readyz", "/metrics"},
    "thinkimg/jobs/runner/run.py": {"THINKIMG_SETUP_SECONDS"},
    "thinkimg/serving/handover.py": {"THINKIMG_PASS_ENVIRONMENT", "THINKIMG_"},  # a person's shell, and a prefix
    "thinkimg/tools/backends/options.py": {"THINKIMG_VLM_API_KEY"},
    "thinkimg/tools/backends/text_reader.py": {"THINKIMG_OCR_CACHE"},
    "thinkimg/training/colocated.py": {"THINKIMG_ENGINE"},
    "operator/thinkimg_operator/probes.py": {"/livez", "/readyz", "/metrics"},  # the operator's own
}
"""File -> words that may stand in it."""

LABEL = re.compile(r"thinkimg\.dev/(?!v\d)[a-z]")
VARIABLE = re.compile(r"(THINKIMG|PET)_")


def words_of_the_contract() -> set[str]:
    """Every text in the two modules that is a path, a label, a variable or a metric."""
    holders = [pod_contract, server_contract]
    holders += [value for module in (pod_contract, server_contract) for value in vars(module).values()
                if isinstance(value, type) and value.__module__ == module.__name__]  # fmt: skip
    values = {value for holder in holders for value in vars(holder).values() if isinstance(value, str)}
    generic = {pod_contract.Place.TEMPORARY, pod_contract.Place.SHARED_MEMORY}
    return {value for value in values if re.match(r"/|[a-z.-]+/|[A-Z]+_|thinkimg_", value)} - generic


def offences(source: str, words: set[str]) -> list[str]:
    """Words of the contract, and things like them, that stand in `source` themselves."""
    tree = ast.parse(source)
    sentences = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in sentences:
            text = node.value
            if VARIABLE.match(text) or LABEL.match(text) or text in words or _is_below(text, words):
                found.append(text)
        found += [*_group_with_a_name(node), *_container_names(node), *_exit_codes(node)]
    return found


def _is_below(text: str, words: set[str]) -> bool:
    return any(text.startswith(f"{word}/") for word in words if word.startswith("/"))


def _group_with_a_name(node: ast.AST) -> Iterator[str]:
    """f"{GROUP}/job" is a label, too."""
    if isinstance(node, ast.JoinedStr) and len(node.values) > 1:
        group, behind = node.values[:2]
        named = isinstance(group, ast.FormattedValue) and ast.unparse(group.value).endswith("GROUP")
        if named and isinstance(behind, ast.Constant) and re.match(r"/(?!v\d)[a-z]", str(behind.value)):
            yield ast.unparse(node)


def _container_names(node: ast.AST) -> Iterator[str]:
    """A container with a literal name, and a log that is read by one."""
    if isinstance(node, ast.Dict):
        members = {key.value: value for key, value in zip(node.keys, node.values, strict=True)
                   if isinstance(key, ast.Constant)}  # fmt: skip
        if "image" in members and isinstance(members.get("name"), ast.Constant):
            yield ast.unparse(members["name"])
    if isinstance(node, ast.keyword) and node.arg == "container" and _is_text(node.value):
        yield ast.unparse(node)
    if isinstance(node, ast.Assign) and any("CONTAINER" in ast.unparse(target) for target in node.targets):
        yield from [ast.unparse(node)] if _is_text(node.value) else []


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and bool(node.value)


_CODES = {code.value for code in pod_contract.ExitCode} - {0}
_ENDS = re.compile(r"(^|\.)_?(exit|Exit)$")


def _exit_codes(node: ast.AST) -> Iterator[str]:
    """exit(2), or _exit(70), or a constant that is named after an end."""
    if isinstance(node, ast.Call) and _ENDS.search(ast.unparse(node.func)):
        inside = [part for argument in node.args for part in _results(argument)]
        yield from [ast.unparse(node) for part in inside if _is_code(part)][:1]
    if isinstance(node, ast.Assign):
        names = " ".join(ast.unparse(target) for target in node.targets)
        if re.search(r"EXIT|USER_ERROR|INFRASTRUCTURE|INTERRUPTED", names) and "TYPER" not in names:
            parts = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
            yield from [ast.unparse(node) for part in parts if _is_code(part)][:1]


def _results(node: ast.expr) -> list[ast.expr]:
    """What an expression may come to."""
    return node.values if isinstance(node, ast.BoolOp) else [node]


def _is_code(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) is int and node.value in _CODES


def sources() -> list[Path]:
    files = [*(ROOT / "thinkimg").rglob("*.py"), *(ROOT / "operator" / "thinkimg_operator").rglob("*.py")]
    return sorted(set(files) - CONTRACT)


def test_no_word_of_the_contract_stands_outside_of_it() -> None:
    words, found = words_of_the_contract(), {}
    for file in sources():
        name = file.relative_to(ROOT).as_posix()
        left = [word for word in offences(file.read_text(), words) if word not in ALLOWED.get(name, ())]
        if left:
            found[name] = left
    assert found == {}, "write it in thinkimg/api/pod_contract.py or server_contract.py, and import it"


def test_what_is_allowed_is_there() -> None:
    words = words_of_the_contract()
    for name, allowed in ALLOWED.items():
        assert allowed == allowed & set(offences((ROOT / name).read_text(), words)), name


@pytest.mark.parametrize(
    "offence",
    [
        'os.environ["THINKIMG_ATTEMPT"]',
        'f"THINKIMG_TOOL_KEY_{number}"',
        'LABEL = "thinkimg.dev/stage"',
        'LABEL = f"{GROUP}/stage"',
        'INDEX = "batch.kubernetes.io/job-completion-index"',
        'f"metadata.labels.{x}" if y else {"thinkimg.dev/tool": name}',
        'CONTAINER = "stage"',
        'container = {"name": "stage", "image": image}',
        'read_log(pod, container="stage")',
        'mount = {"mountPath": "/storage"}',
        'cache = "/storage/.cache"',
        'path = "/dev/termination-log"',
        'get("/readyz")',
        'metric = {"name": "thinkimg_tool_calls_in_flight"}',
        "sys.exit(2)",
        "os._exit(75)",
        "sys.exit(print(error) or 70)",
        "raise typer.Exit(2)",
        "INTERRUPTED = 75",
        "USER, INFRASTRUCTURE, INTERRUPTED = 2, 70, 75",
        'rank = environment["PET_NODE_RANK"]',
    ],
)
def test_a_planted_word_is_found(offence: str) -> None:
    source = f'"""A module."""\n\n\ndef planted(x):\n{textwrap.indent(offence, "    ")}\n'
    assert offences(source, words_of_the_contract())


@pytest.mark.parametrize(
    "fine",
    [
        '"""Reads THINKIMG_ATTEMPT."""',
        'raise UserError("set THINKIMG_ATTEMPT")',
        'API = "thinkimg.dev/v1alpha1"',
        "os.environ[Variable.ATTEMPT]",
        "sys.exit(code)",
        'record = {"name": "stage"}',
    ],
)
def test_a_sentence_is_no_word(fine: str) -> None:
    assert offences(fine, words_of_the_contract()) == []


# ---- files that cannot import ----------------------------------------------------------------------------------------

CHART_OWN = {"THINKIMG_TOOL_KEY", "THINKIMG_MODEL_KEY_", "thinkimg.dev/unplugged", "thinkimg.dev/admission-policy"}
"""What a chart's gateway is told, and read from its own configuration only; what a policy of a chart selects by."""


def strange_words(text: str, words: set[str]) -> set[str]:
    """Labels of our group and variables in a file of another language that the contract does not know."""
    found = set(re.findall(r"(?<![a-z.])thinkimg\.dev/(?!v\d)[a-z][a-z-]*", text))
    found |= set(re.findall(r"THINKIMG_[A-Z_]+", text))
    return found - words - CHART_OWN


def test_charts_and_scripts_write_words_of_the_contract_only() -> None:
    words = words_of_the_contract()
    files = [file for file in (ROOT / "charts").rglob("*") if file.suffix in (".yaml", ".tpl", ".txt", ".json")]
    files += [ROOT / "hack" / "train.slurm"]
    strange = {file.name: found for file in files if (found := strange_words(file.read_text(), words))}
    assert strange == {}
    assert strange_words("export THINKIMG_ATEMPT=1; matchLabels: {thinkimg.dev/tools: x}", words) == {
        "THINKIMG_ATEMPT", "thinkimg.dev/tools",
    }  # fmt: skip


def test_a_chart_calls_the_servers_where_the_operator_puts_them() -> None:
    gateway = (ROOT / "charts/thinkimg-tools/templates/gateway.yaml").read_text()
    assert f'printf "dns+http://%s:{server_contract.PORT}"' in gateway
    assert f"key: {server_contract.Label.TOOL}, operator: Exists" in gateway
    tests = (ROOT / "charts/thinkimg-tools/templates/tests/call-every-tool.yaml").read_text()
    assert f"port: {server_contract.PORT}, protocol: TCP" in tests
    dashboard = (ROOT / "charts/thinkimg-tools/files/dashboards/tools.json").read_text()
    assert f'"expr": "{server_contract.IN_FLIGHT_METRIC}{{' in dashboard


def test_images_run_as_the_user_and_serve_with_the_command_of_the_contract() -> None:
    for name in ("operator", "runtime", "tool", "trainer"):
        assert f"\nUSER {pod_contract.USER}:{pod_contract.USER}\n" in (ROOT / f"Dockerfile.{name}").read_text(), name
    (command,) = re.findall(r"^CMD (.*)$", (ROOT / "Dockerfile.tool").read_text(), re.MULTILINE)
    assert json.loads(command) == server_contract.server_command(server_contract.Place.CONFIG)
    helpers = (ROOT / "charts/thinkimg-tools/templates/_helpers.tpl").read_text()
    assert f"runAsUser: {pod_contract.USER}" in helpers
