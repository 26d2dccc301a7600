"""From a finished run to figures people read: one entry per model, Markdown, plots, and the table over several seeds.

A run is a directory: `manifest.yaml`, `results.json`, and per stage `stages/<stage>/log.jsonl` (one JSON object per
step), `stages/<stage>/trajectories/*.jsonl` or, for an Evaluate stage, `<model>/greedy.jsonl` and `sampled.jsonl`.
"""

import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.table import Table

from thinkimg import jsonl
from thinkimg.errors import UserError
from thinkimg.evaluation.compare import paired_bootstrap
from thinkimg.evaluation.metrics import bootstrap_interval
from thinkimg.evaluation.plots import write_plots
from thinkimg.evaluation.summary import Row, summary_of
from thinkimg.figures import duration, interval, milliseconds, percent

MODEL_NAMES = {
    "base": "Base (zero-shot)",
    "text-sft": "SFT, no tools",
    "text-rl": "Text-only RL",
    "sft": "SFT",
    "sft-long": "SFT, continued",
    "v-toolrl": "V-ToolRL",
}
"""What the models of the table are called, in the table's order; other models follow under their own names."""

Results = Mapping[str, Any]
RESAMPLES = 10_000
"""Of the bootstraps, where no manifest says how many."""


def display_name(model: str) -> str:
    return MODEL_NAMES.get(model, model)


def ordered_models(models: Iterable[str]) -> list[str]:
    """The table's order: the known ones first, then the others as they came."""
    names = list(models)
    return [name for name in MODEL_NAMES if name in names] + [name for name in names if name not in MODEL_NAMES]


# ---- one model ------------------------------------------------------------------------------------------------------


def summarise(greedy: Iterable[Row], sampled: Iterable[Row] = (), seconds: float = 0.0) -> dict[str, Any]:
    """One model's entry of `results.json`: `{"accuracy", "accuracy_sampled", "ci95", "n", ...}`.

    Args:
        greedy, sampled: rows of scored answers. Without sampled ones, `accuracy_sampled` is None.
        seconds: wall time of the evaluation.

    Shares are of the answers that count: one that the infrastructure ended is nobody's answer. It is left out of
    `n` and counted in `infrastructure`. Tool calls, errors and `by_kind`'s `n` are those of the greedy answers.
    """
    first, second = summary_of(greedy), summary_of(sampled)
    entry = first.document()
    return entry | {
        "accuracy_sampled": second.accuracy,
        "n_sampled": second.n,
        "by_kind": {
            kind: {**values, "accuracy_sampled": second.accuracy_of(kind)} for kind, values in entry["by_kind"].items()
        },
        "seconds": seconds,
    }


# ---- one run --------------------------------------------------------------------------------------------------------


def collect(run: Path) -> dict[str, Any]:
    """Everything the report shows besides trajectories, as plain data.

    Returns:
        `{"name", "seed", "n", "rows": [{"model", "label", "accuracy", "accuracy_sampled", "ci95",
        "tool_calls_per_answer", "training_seconds", "seconds", "by_kind", ...}], "tools": {...}, "seconds": {...},
        "curves": [{"stage", "label", "steps", "reward", "accuracy", "tool_calls", "tools": {name: [...]},
        "chains": {chain: [...]}}]}`; a value that a step did not log is None.

    Raises:
        UserError: the run has no results yet, or a file that is not JSON.
    """
    results = read_results(run)
    rows = [
        {
            **entry,
            "model": model,
            "label": display_name(model),
            "training_seconds": results.get("seconds", {}).get(model),
        }
        for model, entry in ((name, results["models"][name]) for name in ordered_models(results["models"]))
    ]
    return {
        "name": _job_name(run),
        "seed": results.get("seed"),
        "n": max((row.get("n", 0) for row in rows), default=0),
        "rows": rows,
        "tools": results.get("tools", {}),
        "seconds": results.get("seconds", {}),
        "curves": [_curve(log) for log in sorted(run.glob("stages/*/log.jsonl"), key=_stage_order(results))],
    }


def read_results(run: Path) -> dict[str, Any]:
    path = run / "results.json"
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError("the run has no results yet; finish it with `thinkimg run`", str(path)) from error
    except ValueError as error:
        raise UserError(f"not JSON: {error}", str(path)) from error
    if not isinstance(results, dict) or not isinstance(results.get("models"), dict):
        raise UserError('expected an object with "models"', str(path))
    return results


def _job_name(run: Path) -> str:
    try:
        documents = list(yaml.safe_load_all((run / "manifest.yaml").read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError):
        return run.resolve().name
    for document in documents:
        if isinstance(document, dict) and document.get("kind") == "ToolRLJob":
            return str((document.get("metadata") or {}).get("name") or run.resolve().name)
    return run.resolve().name


def _stage_order(results: Results) -> Any:
    order = list(results.get("seconds", {}))
    return lambda log: (order.index(log.parent.name) if log.parent.name in order else len(order), log.parent.name)


def _curve(log: Path) -> dict[str, Any]:
    """A stage's log as columns."""
    steps = _read_steps(log)
    stage = log.parent.name

    def share_columns(field: str) -> dict[str, list[float]]:
        """Names that a step does not mention did not happen in it."""
        totals: Counter[str] = Counter()
        for step in steps:
            totals.update(step.get(field) or {})
        return {
            name: [float((step.get(field) or {}).get(name, 0.0)) for step in steps] for name, _ in totals.most_common()
        }

    return {
        "stage": stage,
        "label": display_name(stage),
        "steps": [step["step"] for step in steps],
        **{field: [step.get(field) for step in steps] for field in ("reward", "accuracy", "tool_calls", "loss")},
        "tools": share_columns("tools"),
        "chains": share_columns("chains"),
    }


def _read_steps(log: Path) -> list[dict[str, Any]]:
    """One record per step, in order. A resumed stage may log a step again: the later record is the one that stayed."""
    steps: dict[int, dict[str, Any]] = {}
    for line in jsonl.lines(log):
        try:
            record = jsonl.parse(line.text)
            steps[int(record["step"])] = record
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"line {line.number} is not a step's JSON object: {error}", str(log)) from error
    return [steps[step] for step in sorted(steps)]


def write_report(run: Path) -> dict[str, Any]:
    """Write `results.md` and `plots/*.png`; returns what `collect` gives, which the page is made from."""
    report = collect(run)
    report["plots"] = [path.relative_to(run).as_posix() for path in write_plots(report["curves"], run / "plots")]
    (run / "results.md").write_text(_markdown(report), encoding="utf-8")
    return report


def _markdown(report: Mapping[str, Any]) -> str:
    seed = "" if report["seed"] is None else f", seed {report['seed']}"
    lines = [f"# {report['name']}", "", f"{report['n']} held-out questions{seed}.", "", *_headline(report["rows"])]
    kinds = sorted({kind for row in report["rows"] for kind in row.get("by_kind") or {}})
    if kinds:
        lines += ["", "## By kind of question", "", *_kinds(report["rows"], kinds)]
    if report["tools"]:
        lines += ["", "## Tools", "", *_tools(report["tools"])]
    if report["seconds"]:
        lines += ["", "## Time", ""]
        lines += markdown_rows(
            ("Stage", "Time"), [(stage, duration(value)) for stage, value in report["seconds"].items()]
        )
    if report.get("plots"):
        lines += ["", "## Training", "", *(f"![{Path(plot).stem}]({plot})" for plot in report["plots"])]
    return "\n".join(lines) + "\n"


HEADLINE = ("Model", "Accuracy", "95 % interval", "Sampled (T = 1)", "Tool calls per answer", "Training", "Evaluation")


def _headline_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        str(row.get("label") or display_name(row["model"])),
        percent(row.get("accuracy")),
        interval(row.get("ci95")),
        percent(row.get("accuracy_sampled")),
        "–" if row.get("tool_calls_per_answer") is None else f"{row['tool_calls_per_answer']:.2f}",
        duration(row.get("training_seconds")),
        duration(row.get("seconds")),
    )


def _headline(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return markdown_rows(HEADLINE, [_headline_cells(row) for row in rows])


def _kinds(rows: Sequence[Mapping[str, Any]], kinds: Sequence[str]) -> list[str]:
    return markdown_rows(
        ("Model", *kinds),
        [
            (row["label"], *(percent((row.get("by_kind") or {}).get(kind, {}).get("accuracy")) for kind in kinds))
            for row in rows
        ],
    )


def _tools(tools: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return markdown_rows(
        ("Tool", "HTTP calls", "Cache hits", "Model errors", "Infrastructure errors", "p50", "p95"),
        [
            (
                name,
                f"{entry.get('http_calls', 0):,}",
                f"{entry.get('cache_hits', 0):,}",
                f"{(entry.get('errors') or {}).get('model', 0):,}",
                f"{(entry.get('errors') or {}).get('infrastructure', 0):,}",
                milliseconds(entry.get("p50_ms")),
                milliseconds(entry.get("p95_ms")),
            )
            for name, entry in tools.items()
        ],
    )


def markdown_rows(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table: the first column to the left, the others to the right."""
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (head, rule, *body)]


def terminal_table(results: Results) -> Table:
    """The headline table of a `results.json`, short enough for 80 columns."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for number, title in enumerate(("Model", "Greedy", "95 % interval", "Sampled", "Tool calls", "Training")):
        table.add_column(title, justify="left" if number == 0 else "right", no_wrap=True)
    for model in ordered_models(results["models"]):
        entry = {**results["models"][model], "model": model}
        entry.setdefault("training_seconds", results.get("seconds", {}).get(model))
        table.add_row(*_headline_cells(entry)[:6], style="bold" if model == "v-toolrl" else None)
    return table


# ---- several seeds --------------------------------------------------------------------------------------------------


def write_table(
    runs: Sequence[Path], out: Path, pairs: Sequence[tuple[str, str]] = (), resamples: int = RESAMPLES
) -> dict[str, Any]:
    """One table over runs of the same manifest with different seeds: `out/results.json` and `out/results.md`.

    Returns what `results.json` holds: `{"seeds": {seed: that run's results}, "mean": {"models": {model: {"accuracy",
    "accuracy_sampled", "ci95", "ci95_sampled", "per_seed", "per_seed_sampled", "n", "tool_calls_per_answer", ...}},
    "differences": [{"model", "other", "accuracy": {"difference", "ci95", "p"}, "accuracy_sampled": ...}]}}`. Means are
    over seeds; intervals are two-level bootstraps over seeds and questions; differences are paired by question.

    Args:
        pairs: which models are compared, the first minus the second; none: v-toolrl with each other one.
        resamples: of the bootstraps (`evaluate.bootstrap` of a manifest).

    Raises:
        UserError: a run without results or trajectories, or two runs with the same seed.
    """
    results = {run: read_results(run) for run in runs}
    seeds = {run: str(found.get("seed", run.name)) for run, found in results.items()}
    if not runs or len(set(seeds.values())) != len(runs):
        raise UserError(f"expected runs with different seeds, found {sorted(seeds.values())}", "runs")
    shared = [
        model
        for model in ordered_models(results[runs[0]]["models"])
        if all(model in found["models"] for found in results.values())
    ]
    outcomes = {
        mode: {model: [_read_outcomes(run, model, mode) for run in runs] for model in shared}
        for mode in ("greedy", "sampled")
    }
    table = {
        "seeds": {seeds[run]: dict(found) for run, found in results.items()},
        "mean": {
            "models": {model: _over_seeds(model, list(results.values()), outcomes, resamples) for model in shared},
            "differences": [
                _compare(model, other, outcomes, resamples)
                for model, other in pairs or [("v-toolrl", other) for other in shared if other != "v-toolrl"]
                if model in shared and other in shared
            ],
        },
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    (out / "results.md").write_text(_table_markdown(table), encoding="utf-8")
    return table


Outcomes = dict[str, dict[str, list[dict[str, float]]]]
"""Mode and model to, per seed, question to the share of right answers (1.0 or 0.0 where it is asked once)."""


def _read_outcomes(run: Path, model: str, mode: str) -> dict[str, float]:
    """Question to right or wrong, without the pictures and tokens. Infrastructure failures are left out."""
    paths = sorted(run.glob(f"stages/*/{model}/{mode}.jsonl"))
    if not paths:
        if mode == "sampled":
            return {}
        raise UserError(f"the run has no {mode} trajectories of {model!r}", str(run))
    outcomes: dict[str, list[float]] = defaultdict(list)
    for number, record in enumerate(jsonl.read(paths[-1])):
        if record["status"] != "infrastructure":
            question = record["meta"].get("question_id", number)
            outcomes[str(question)].append(float(record["correct"] is True))
    if not outcomes:
        raise UserError(f"no answer of {model!r} counts", str(paths[-1]))
    return {question: statistics.fmean(answers) for question, answers in outcomes.items()}


def _over_seeds(model: str, results: Sequence[Results], outcomes: Outcomes, resamples: int) -> dict[str, Any]:
    entry: dict[str, Any] = {"n": sum(len(seed) for seed in outcomes["greedy"][model])}
    for mode, suffix in (("greedy", ""), ("sampled", "_sampled")):
        values = [list(seed.values()) for seed in outcomes[mode][model]]
        known = all(values)
        per_seed = [statistics.fmean(seed) for seed in values] if known else None
        entry[f"accuracy{suffix}"] = statistics.fmean(per_seed) if per_seed else None
        entry[f"ci95{suffix}"] = list(bootstrap_interval(values, resamples)) if known else None
        entry[f"per_seed{suffix}"] = per_seed
    for field in ("tool_calls_per_answer", "seconds"):
        known_values = [found["models"][model].get(field) for found in results]
        entry[field] = statistics.fmean(known_values) if None not in known_values else None
    training = [found.get("seconds", {}).get(model) for found in results]
    entry["training_seconds"] = statistics.fmean(training) if None not in training else None
    return entry


def _compare(model: str, other: str, outcomes: Outcomes, resamples: int) -> dict[str, Any]:
    compared: dict[str, Any] = {"model": model, "other": other}
    for mode, field in (("greedy", "accuracy"), ("sampled", "accuracy_sampled")):
        first, second = [], []
        for a, b in zip(outcomes[mode][model], outcomes[mode][other], strict=True):
            both = [question for question in a if question in b]
            first.append([a[question] for question in both])
            second.append([b[question] for question in both])
        if all(first):
            found = paired_bootstrap(first, second, resamples)
            compared[field] = {"difference": found.difference, "ci95": list(found.ci95), "p": found.p}
    return compared


def _table_markdown(table: Mapping[str, Any]) -> str:
    seeds = list(table["seeds"])
    rows = []
    for model, entry in table["mean"]["models"].items():
        per_seed = entry["per_seed"] or [None] * len(seeds)
        rows.append(
            (
                display_name(model),
                percent(entry["accuracy"]),
                interval(entry["ci95"]),
                *(percent(value) for value in per_seed),
                percent(entry["accuracy_sampled"]),
                interval(entry["ci95_sampled"]),
                "–" if entry["tool_calls_per_answer"] is None else f"{entry['tool_calls_per_answer']:.2f}",
                duration(entry["training_seconds"]),
            )
        )
    head = ("Model", "Accuracy", "95 % interval", *(f"Seed {seed}" for seed in seeds))
    head += ("Sampled (T = 1)", "95 % interval", "Tool calls per answer", "Training")
    lines = [
        f"Mean over {len(seeds)} seeds; intervals are bootstraps over seeds and questions.",
        "",
        *markdown_rows(head, rows),
    ]
    compared = [
        (
            f"{display_name(found['model'])} minus {display_name(found['other'])}",
            *(_difference_cell(found.get(field)) for field in ("accuracy", "accuracy_sampled")),
        )
        for found in table["mean"]["differences"]
    ]
    if compared:
        lines += ["", *markdown_rows(("Difference in points (paired)", "Greedy", "Sampled"), compared)]
    return "\n".join(lines) + "\n"


def _difference_cell(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "–"
    low, high = found["ci95"]
    p = "p < 0.001" if found["p"] < 0.001 else f"p = {found['p']:.3f}"
    return f"{100 * found['difference']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f}, {p})"
