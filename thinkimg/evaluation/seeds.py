"""One table over runs of the same job with different seeds: means, intervals, paired differences."""

import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from thinkimg import jsonl
from thinkimg.errors import UserError
from thinkimg.evaluation.compare import Answered, paired_difference
from thinkimg.evaluation.intervals import RESAMPLES, Answer, mean_of, mean_over
from thinkimg.evaluation.markdown import markdown_rows
from thinkimg.evaluation.origins import display_name, ordered_models, origins_of_run, pairs_of
from thinkimg.evaluation.report import read_results
from thinkimg.evaluation.summary import answer_of, row_of
from thinkimg.figures import UNKNOWN, accuracy, duration, interval, percent, points, rate
from thinkimg.jsonfile import write
from thinkimg.results import (
    ComparedModels,
    Interval,
    ModelFigures,
    PairedDifference,
    RunResults,
    SeedsFigures,
    SeedsMean,
    TableResults,
)
from thinkimg.trajectory import LOST


def write_table(
    runs: Sequence[Path], out: Path, pairs: Sequence[tuple[str, str]] = (), resamples: int = RESAMPLES
) -> TableResults:
    """Write `out/results.json` and `out/results.md`; returns what the first holds.

    Means are over seeds; so are intervals and p-values, see `thinkimg.evaluation.intervals`; differences are paired by
    seed and question.

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
            intervals="seeds" if len(runs) > 1 else "questions",
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

Outcomes = dict[str, dict[str, list[Answered]]]
"""Mode and model to, per seed, question to the share of right answers (1.0 or 0.0 where it is asked once)."""


def _read_outcomes(run: Path, model: str, mode: str) -> Answered:
    """Question to right or wrong, without the pictures and tokens. What the infrastructure lost is left out."""
    paths = sorted(run.glob(f"stages/*/{model}/{mode}.jsonl"))
    if not paths:
        if mode == "sampled":
            return {}
        raise UserError(f"the run has no {mode} trajectories of {model!r}", str(run))
    outcomes: dict[str, list[Answer]] = defaultdict(list)
    for number, record in enumerate(jsonl.read(paths[-1])):
        if record["status"] not in LOST:
            meta = record["meta"]
            question = meta.get("sample_of") or meta.get("task") or meta.get("question_id", number)
            outcomes[str(question)].append(answer_of(row_of(record), float(record["correct"] is True)))
    if not outcomes:
        raise UserError(f"no answer of {model!r} counts", str(paths[-1]))
    return {question: mean_of(answers) for question, answers in outcomes.items()}


def _over_seeds(model: str, results: Sequence[RunResults], outcomes: Outcomes, resamples: int) -> SeedsFigures:
    every = [found.models[model] for found in results]
    bounds = {
        "greedy": [figures.bounds for figures in every],
        "sampled": [figures.bounds_sampled for figures in every],
    }
    greedy, sampled = (
        _MeanOverSeeds([list(seed.values()) for seed in outcomes[mode][model]], bounds[mode], resamples)
        for mode in outcomes
    )

    def mean(value: Callable[[ModelFigures], float | None]) -> float | None:
        return _mean([value(found.models[model]) for found in results])

    return SeedsFigures(
        n=sum(len(seed) for seed in greedy.values),
        accuracy=greedy.accuracy,
        ci95=greedy.ci95,
        per_seed=greedy.per_seed,
        lost=sum(figures.infrastructure + figures.infrastructure_sampled for figures in every),
        refused=sum(figures.refused for figures in every),
        context_full=sum(figures.context_full for figures in every),
        refused_sampled=sum(figures.refused_sampled for figures in every),
        context_full_sampled=sum(figures.context_full_sampled for figures in every),
        bounds=greedy.bounds,
        bounds_sampled=sampled.bounds,
        accuracy_sampled=sampled.accuracy,
        ci95_sampled=sampled.ci95,
        per_seed_sampled=sampled.per_seed,
        tool_calls_per_answer=mean(lambda figures: figures.tool_calls_per_answer),
        seconds=mean(lambda figures: figures.seconds),
        training_seconds=_mean([found.seconds.get(model) for found in results]),
    )


class _MeanOverSeeds:
    """Shares of right answers, per seed; all None where a seed has no answers of that mode, or some were lost, of which
    then the mean's bounds are known.

    Args:
        bounds: per seed, of its share; None where nothing was lost.
    """

    def __init__(self, values: Sequence[Sequence[Answer]], bounds: Sequence[Interval | None], resamples: int) -> None:
        self.values = values
        known = all(values) and not any(bounds)
        self.bounds = self._bounds(bounds) if all(values) and any(bounds) else None
        found = mean_over(values, resamples) if known else None
        self.per_seed = [mean_of(seed).value for seed in values] if known else None
        self.accuracy = found.mean if found else None
        self.ci95 = found.ci95 if found else None

    def _bounds(self, bounds: Sequence[Interval | None]) -> Interval:
        shares = [given or (mean_of(seed).value,) * 2 for given, seed in zip(bounds, self.values, strict=True)]
        return statistics.fmean(low for low, _ in shares), statistics.fmean(high for _, high in shares)


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


def _difference(of: Sequence[Answered], minus: Sequence[Answered], resamples: int) -> PairedDifference | None:
    found = paired_difference(of, minus, resamples)
    return PairedDifference(difference=found.difference, ci95=found.ci95, p=found.p) if found else None


# ---- Markdown -------------------------------------------------------------------------------------------------------


def _markdown(table: TableResults) -> str:
    seeds = list(table.seeds)
    head = ("Model", "Accuracy", "95 % interval", *(f"Seed {seed}" for seed in seeds))
    head += ("Sampled (T = 1)", "95 % interval", "Tool calls per answer", "Training")
    rows = [_cells(model, figures, len(seeds)) for model, figures in table.mean.models.items()]
    lines = [
        _method(len(seeds)),
        "",
        *markdown_rows(head, rows),
        "",
    ]
    lost = [f"{display_name(name)} {figures.lost:,}" for name, figures in table.mean.models.items() if figures.lost]
    if lost:
        lines += [f"Lost to the infrastructure, so neither right nor wrong: answers of {', '.join(lost)}.", ""]
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


def _method(seeds: int) -> str:
    """What the intervals are, in words."""
    if seeds == 1:
        return (
            "One seed. Intervals are over its questions, clustered by picture (Wilson; of differences a bootstrap): "
            "they do not say what another seed would give."
        )
    few = "; of two seeds they are wide, and only a third makes them narrower" if seeds == 2 else ""
    return (
        f"Mean over {seeds} seeds. The seed is the unit: intervals and p are Student's t over the seeds "
        f"({seeds - 1} degree{'s' if seeds > 2 else ''} of freedom){few}. Where the questions alone, clustered by "
        "picture, leave more doubt, theirs are shown."
    )


def _cells(model: str, figures: SeedsFigures, seeds: int) -> tuple[str, ...]:
    return (
        display_name(model),
        accuracy(figures.accuracy, figures.bounds, figures.refused, figures.context_full),
        interval(figures.ci95),
        *(map(percent, figures.per_seed) if figures.per_seed else [UNKNOWN] * seeds),
        accuracy(
            figures.accuracy_sampled, figures.bounds_sampled, figures.refused_sampled, figures.context_full_sampled
        ),
        interval(figures.ci95_sampled),
        rate(figures.tool_calls_per_answer),
        duration(figures.training_seconds),
    )


def _difference_cell(found: PairedDifference | None) -> str:
    if found is None:
        return UNKNOWN
    return points(found.difference, found.ci95, found.p)
