"""One table over runs of the same job with different seeds: means, intervals, paired differences."""

import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from thinkimg import jsonl
from thinkimg.errors import UserError
from thinkimg.evaluation.compare import paired_bootstrap
from thinkimg.evaluation.markdown import markdown_rows
from thinkimg.evaluation.metrics import bootstrap_interval
from thinkimg.evaluation.origins import display_name, ordered_models, origins_of_run, pairs_of
from thinkimg.evaluation.report import read_results
from thinkimg.figures import UNKNOWN, duration, interval, percent, rate
from thinkimg.jsonfile import write
from thinkimg.results import (
    ComparedModels,
    ModelFigures,
    PairedDifference,
    RunResults,
    SeedsFigures,
    SeedsMean,
    TableResults,
)

RESAMPLES = 10_000
"""Of the bootstraps, where no manifest says how many."""


def write_table(
    runs: Sequence[Path], out: Path, pairs: Sequence[tuple[str, str]] = (), resamples: int = RESAMPLES
) -> TableResults:
    """Write `out/results.json` and `out/results.md`; returns what the first holds.

    Means are over seeds; intervals are two-level bootstraps over seeds and questions; differences are paired by
    question.

    Args:
        pairs: which models are compared, the first minus the second; none: what the first run's manifest asks for
            (`origins.pairs_of`).
        resamples: of the bootstraps (`evaluate.bootstrap` of a manifest).

    Raises:
        UserError: a run without results or trajectories, or two runs with the same seed.
    """
    results = [read_results(run) for run in runs]
    seeds = [run.name if found.seed is None else str(found.seed) for run, found in zip(runs, results, strict=True)]
    if not runs or len(set(seeds)) != len(runs):
        raise UserError(f"expected runs with different seeds, found {sorted(seeds)}", "runs")
    shared = [
        model for model in ordered_models(results[0].models) if all(model in found.models for found in results)
    ]  # fmt: skip
    outcomes = {
        mode: {model: [_read_outcomes(run, model, mode) for run in runs] for model in shared}
        for mode in ("greedy", "sampled")
    }
    chosen = list(pairs) or pairs_of(origins_of_run(runs[0], results[0]), shared)
    table = TableResults(
        seeds=dict(zip(seeds, results, strict=True)),
        mean=SeedsMean(
            models={model: _over_seeds(model, results, outcomes, resamples) for model in shared},
            differences=[
                _compare(model, other, outcomes, resamples)
                for model, other in chosen
                if model in shared and other in shared
            ],
        ),
    )
    out.mkdir(parents=True, exist_ok=True)
    write(out / "results.json", table)
    (out / "results.md").write_text(_markdown(table), encoding="utf-8")
    return table


# ---- statistics -----------------------------------------------------------------------------------------------------

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


def _over_seeds(model: str, results: Sequence[RunResults], outcomes: Outcomes, resamples: int) -> SeedsFigures:
    greedy, sampled = (
        _MeanOverSeeds([list(seed.values()) for seed in outcomes[mode][model]], resamples) for mode in outcomes
    )

    def mean(value: Callable[[ModelFigures], float | None]) -> float | None:
        return _mean([value(found.models[model]) for found in results])

    return SeedsFigures(
        n=sum(len(seed) for seed in greedy.values),
        accuracy=greedy.accuracy,
        ci95=greedy.ci95,
        per_seed=greedy.per_seed,
        accuracy_sampled=sampled.accuracy,
        ci95_sampled=sampled.ci95,
        per_seed_sampled=sampled.per_seed,
        tool_calls_per_answer=mean(lambda figures: figures.tool_calls_per_answer),
        seconds=mean(lambda figures: figures.seconds),
        training_seconds=_mean([found.seconds.get(model) for found in results]),
    )


class _MeanOverSeeds:
    """Shares of right answers, per seed; all None where a seed has no answers of that mode."""

    def __init__(self, values: Sequence[Sequence[float]], resamples: int) -> None:
        self.values = values
        known = all(values)
        self.per_seed = [statistics.fmean(seed) for seed in values] if known else None
        self.accuracy = statistics.fmean(self.per_seed) if self.per_seed else None
        self.ci95 = bootstrap_interval(values, resamples) if known else None


def _mean(values: Sequence[float | None]) -> float | None:
    """None if one of them is not known."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(values) else None


def _compare(model: str, other: str, outcomes: Outcomes, resamples: int) -> ComparedModels:
    return ComparedModels(
        model=model,
        other=other,
        accuracy=_difference(outcomes["greedy"][model], outcomes["greedy"][other], resamples),
        accuracy_sampled=_difference(outcomes["sampled"][model], outcomes["sampled"][other], resamples),
    )


def _difference(
    of: Sequence[Mapping[str, float]], minus: Sequence[Mapping[str, float]], resamples: int
) -> PairedDifference | None:  # fmt: skip
    """On the questions that both answered, seed by seed; None if a seed has none."""
    first, second = [], []
    for a, b in zip(of, minus, strict=True):
        both = [question for question in a if question in b]
        first.append([a[question] for question in both])
        second.append([b[question] for question in both])
    if not all(first):
        return None
    found = paired_bootstrap(first, second, resamples)
    return PairedDifference(difference=found.difference, ci95=found.ci95, p=found.p)


# ---- Markdown -------------------------------------------------------------------------------------------------------


def _markdown(table: TableResults) -> str:
    seeds = list(table.seeds)
    head = ("Model", "Accuracy", "95 % interval", *(f"Seed {seed}" for seed in seeds))
    head += ("Sampled (T = 1)", "95 % interval", "Tool calls per answer", "Training")
    rows = [_cells(model, figures, len(seeds)) for model, figures in table.mean.models.items()]
    lines = [
        f"Mean over {len(seeds)} seeds; intervals are bootstraps over seeds and questions.",
        "",
        *markdown_rows(head, rows),
        "",
    ]
    compared = [
        (
            f"{display_name(found.model)} minus {display_name(found.other)}",
            _difference_cell(found.accuracy),
            _difference_cell(found.accuracy_sampled),
        )
        for found in table.mean.differences
    ]
    if compared:
        lines += markdown_rows(("Difference in points (paired)", "Greedy", "Sampled"), compared)
    else:
        lines += ["No differences are shown: none of these models is known to be trained by the job."]
    return "\n".join(lines) + "\n"


def _cells(model: str, figures: SeedsFigures, seeds: int) -> tuple[str, ...]:
    return (
        display_name(model),
        percent(figures.accuracy),
        interval(figures.ci95),
        *(map(percent, figures.per_seed) if figures.per_seed else [UNKNOWN] * seeds),
        percent(figures.accuracy_sampled),
        interval(figures.ci95_sampled),
        rate(figures.tool_calls_per_answer),
        duration(figures.training_seconds),
    )


def _difference_cell(found: PairedDifference | None) -> str:
    if found is None:
        return UNKNOWN
    low, high = found.ci95
    p = "p < 0.001" if found.p < 0.001 else f"p = {found.p:.3f}"
    return f"{100 * found.difference:+.1f} ({100 * low:+.1f} to {100 * high:+.1f}, {p})"
