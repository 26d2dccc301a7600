"""One table over runs of the same job with different seeds: means, intervals, paired differences."""

import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from thinkimg import jsonl
from thinkimg.api import Control
from thinkimg.errors import UserError
from thinkimg.evaluation import samples
from thinkimg.evaluation.compare import Answered, ByQuestion, is_whole, mean_of_seeds, paired_difference
from thinkimg.evaluation.intervals import RESAMPLES
from thinkimg.evaluation.origins import ordered_models, origins_of_run, pairs_of
from thinkimg.evaluation.owed import control_figures
from thinkimg.evaluation.report import read_results
from thinkimg.evaluation.roles import role_of
from thinkimg.evaluation.seeds_markdown import as_markdown
from thinkimg.evaluation.summary import row_of
from thinkimg.jsonfile import write
from thinkimg.results import (
    AnswerRow,
    ComparedModels,
    ControlFigures,
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
    measured = {
        model: [_Measured.of(run, list(found.stages), model) for run, found in zip(runs, results, strict=True)]
        for model in shared
    }
    chosen = list(pairs) or pairs_of(origins_of_run(runs[0], results[0]), shared)
    table = TableResults(
        seeds=dict(zip(seeds, results, strict=True)),
        mean=SeedsMean(
            intervals="seeds" if len(runs) > 1 else "questions",
            models={model: _over_seeds(model, results, measured[model], resamples) for model in shared},
            differences=[
                _compare((model, measured[model]), (other, measured[other]), resamples)
                for model, other in chosen
                if model in shared and other in shared
            ],
        ),
    )
    out.mkdir(parents=True, exist_ok=True)
    write(out / "results.json", table)
    (out / "results.md").write_text(as_markdown(table), encoding="utf-8")
    return table


# ---- one seed's answers ----------------------------------------------------------------------------------------------


class _Answers:
    """The answers of one model with one seed, asked in one way: what is kept of them is without pictures and tokens."""

    def __init__(self, rows: Iterator[AnswerRow]) -> None:
        right, self.samples = ByQuestion(), samples.Samples()
        by_scorer: dict[str, ByQuestion] = {}
        counts: Counter[str] = Counter()
        lost, total = list[AnswerRow](), 0
        for row in rows:
            self.samples.add(row)
            if row.status in LOST:
                lost.append(row)
                continue
            total += 1
            right.add(row, float(row.correct))
            for name, value in row.scores.items():
                if value is not None:
                    by_scorer.setdefault(name, ByQuestion()).add(row, value)
                    counts[name] += 1
        for row in lost:
            for one in (right, *by_scorer.values()):
                one.add(row, None)
        self.count = total
        self.right: Answered = right.known()
        self.scores: dict[str, Answered] = {
            name: found.known() for name, found in by_scorer.items() if counts[name] == total
        }


@dataclass(frozen=True)
class _Measured:
    """What one model answered with one seed."""

    greedy: _Answers
    sampled: _Answers
    controls: Mapping[Control, tuple[Answered, Answered]]
    """Under each of them, what it answered with the true pictures and with the changed ones."""

    def score(self, name: str) -> Answered:
        """Of its greedy answers."""
        return self.greedy.scores[name]

    @classmethod
    def of(cls, run: Path, stages: Sequence[str], model: str) -> "_Measured":
        """Of several Evaluate stages the last one in the manifest counts, and of each control the last one that asked
        under it.

        Raises:
            UserError: there are no greedy answers, or none that counts.
        """

        def order(folder: Path) -> tuple[int, str]:
            name = folder.parent.name
            return stages.index(name) if name in stages else -1, name

        folders = sorted((path.parent for path in run.glob(f"stages/*/{model}/greedy.jsonl")), key=order)
        if not folders:
            raise UserError(f"the run has no greedy trajectories of {model!r}", str(run))
        greedy = {folder: _read(folder / "greedy.jsonl") for folder in folders}
        sampled = [path for folder in folders if (path := folder / "sampled.jsonl").exists()]
        controls = {
            control: (greedy[folder].right, _read(path).right)
            for folder in folders
            for path in sorted(folder.glob("control-*.jsonl"))
            if (control := Control.of(path.stem)) is not None
        }
        last = folders[-1]
        found = cls(greedy[last], _read(sampled[-1]) if sampled else _Answers(iter(())), controls)
        for mode, answers, path in (("greedy", found.greedy, last), ("sampled", found.sampled, last)):
            if not answers.count and (answers.right or mode == "greedy"):
                raise UserError(f"no {mode} answer of {model!r} counts", str(path))
        return found


def _read(path: Path) -> _Answers:
    def rows() -> Iterator[AnswerRow]:
        for number, record in enumerate(jsonl.read(path)):
            row, meta = row_of(record), record["meta"]
            question = meta.get("task") or meta.get("question_id", number)
            yield row.model_copy(update={"id": str(question)})

    return _Answers(rows())


# ---- statistics -----------------------------------------------------------------------------------------------------


def _over_seeds(
    model: str, results: Sequence[RunResults], measured: Sequence[_Measured], resamples: int
) -> SeedsFigures:
    every = [found.models[model] for found in results]
    modes = [one.greedy for one in measured], [one.sampled for one in measured]
    right = [[answers.right for answers in mode] for mode in modes]
    greedy, sampled = (mean_of_seeds(seeds, resamples=resamples) for seeds in right)
    names = [name for name in measured[0].greedy.scores if all(name in one.greedy.scores for one in measured)]
    controls = [control for control in measured[0].controls if all(control in one.controls for one in measured)]

    def mean(value: Callable[[ModelFigures], float | None]) -> float | None:
        return _mean([value(found.models[model]) for found in results])

    return SeedsFigures(
        n=sum(known.answers > 0 for seed in right[0] for known in seed.values()),
        accuracy=greedy.mean,
        ci95=greedy.ci95,
        per_seed=_per_seed(right[0]),
        lost=sum(figures.infrastructure + figures.infrastructure_sampled for figures in every),
        refused=sum(figures.refused for figures in every),
        context_full=sum(figures.context_full for figures in every),
        refused_sampled=sum(figures.refused_sampled for figures in every),
        context_full_sampled=sum(figures.context_full_sampled for figures in every),
        bounds=greedy.bounds,
        bounds_sampled=sampled.bounds,
        accuracy_sampled=sampled.mean,
        ci95_sampled=sampled.ci95,
        per_seed_sampled=_per_seed(right[1]),
        tool_calls_per_answer=mean(lambda figures: figures.tool_calls_per_answer),
        seconds=mean(lambda figures: figures.seconds),
        training_seconds=_mean([found.seconds.get(model) for found in results]),
        scores={name: mean_of_seeds([one.score(name) for one in measured], role_of(name), resamples) for name in names},
        samples=samples.over_seeds([one.sampled.samples for one in measured]),
        controls=[_under(control, measured, resamples) for control in controls],
    )


def _under(control: Control, measured: Sequence[_Measured], resamples: int) -> ControlFigures:
    found = [one.controls[control] for one in measured]
    return control_figures(control, [true for true, _ in found], [changed for _, changed in found], resamples)


def _per_seed(seeds: Sequence[Answered]) -> list[float] | None:
    """None where a seed has no answers, or some were lost."""
    if not all(seeds) or not is_whole(seeds):
        return None
    return [statistics.fmean(known.least for known in seed.values()) for seed in seeds]


def _mean(values: Sequence[float | None]) -> float | None:
    """None if one of them is not known."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(values) else None


def _compare(
    of: tuple[str, Sequence[_Measured]], minus: tuple[str, Sequence[_Measured]], resamples: int
) -> ComparedModels:
    def difference(value: Callable[[_Measured], Answered]) -> PairedDifference | None:
        return paired_difference([value(one) for one in of[1]], [value(one) for one in minus[1]], resamples)

    every = [one.greedy.scores for one in (*of[1], *minus[1])]
    names = [name for name in every[0] if role_of(name) and all(name in scores for scores in every)]
    differences = {name: difference(partial(_Measured.score, name=name)) for name in names}
    return ComparedModels(
        model=of[0],
        other=minus[0],
        accuracy=difference(lambda one: one.greedy.right),
        accuracy_sampled=difference(lambda one: one.sampled.right),
        scores={name: found for name, found in differences.items() if found is not None},
    )
