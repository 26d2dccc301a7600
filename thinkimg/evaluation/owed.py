"""What a model owes to its eyes: its answers with true pictures against those with changed ones."""

from collections.abc import Iterable, Sequence

from thinkimg.api import Control
from thinkimg.evaluation.compare import Answered, in_words, mean_of_seeds, paired_difference
from thinkimg.evaluation.intervals import RESAMPLES
from thinkimg.figures import accuracy, interval
from thinkimg.results import ControlFigures

HEAD = ("Model", "Changed", "True pictures", "Changed pictures", "95 % interval", "Owed to seeing (points)")


def control_figures(
    control: Control, true: Sequence[Answered], changed: Sequence[Answered], resamples: int = RESAMPLES
) -> ControlFigures:
    """Of the answers to the same questions, of one seed or several."""
    before, after = mean_of_seeds(true, resamples=resamples), mean_of_seeds(changed, resamples=resamples)
    return ControlFigures(
        control=control.kind,
        scope=control.scope,
        n=sum(known.answers for seed in changed for known in seed.values()),
        true=before.mean,
        bounds_true=before.bounds,
        accuracy=after.mean,
        ci95=after.ci95,
        bounds=after.bounds,
        owed=paired_difference(true, changed, resamples),
    )


def cells(models: Iterable[tuple[str, Iterable[ControlFigures]]]) -> list[tuple[str, ...]]:
    """Rows of a table; none without controls."""
    return [
        (
            model,
            str(Control(one.control, one.scope)),
            accuracy(one.true, one.bounds_true),
            accuracy(one.accuracy, one.bounds),
            interval(one.ci95),
            in_words(one.owed),
        )
        for model, controls in models
        for one in controls
    ]


def notes(rows: Iterable[tuple[str, ...]]) -> list[str]:
    """The rows as sentences, for a terminal."""
    return [
        f"{model}: pictures changed ({control}): {after} ({bounds}); owed to seeing the true ones: {owed}"
        for model, control, _, after, bounds, owed in rows
    ]
