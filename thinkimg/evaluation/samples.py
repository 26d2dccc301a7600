"""Questions that are asked several times: avg@k, pass@k and the majority's vote, with intervals.

The k answers to one question count as one observation in every interval, and so do the questions about one picture.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import comb
from statistics import fmean

from thinkimg.errors import UserError
from thinkimg.evaluation.choices import choose
from thinkimg.evaluation.intervals import Answer, mean_over
from thinkimg.evaluation.metrics import candidates, normalise_text
from thinkimg.evaluation.numbers import read_number
from thinkimg.figures import accuracy, interval
from thinkimg.results import AnswerRow, SampleFigures, Score
from thinkimg.trajectory import LOST, Task

TIES = "a tie counts as the share of the most frequent answers that are right"


def several(tasks: Iterable[Task], samples: int) -> Iterator[Task]:
    """Each question so many times, as `NAME@1`, `NAME@2` and so on, which are answered, kept and resumed by themselves.

    Args:
        tasks: told apart by their names.
    """
    for task in tasks:
        if samples == 1:
            yield task
            continue
        for number in range(1, samples + 1):
            meta = {**task.meta, "sample_of": task.id, "sample": number}
            yield replace(task, id=f"{task.id}@{number}", meta=meta)


def read_as(answer: str | None, options: Mapping[str, str] | None) -> str | None:
    """What an answer counts as in a vote: the option's letter where the question has options, else a number whatever
    its notation and unit, else the normalised text. None for no answer, which does not vote."""
    said = candidates(answer) if answer is not None else []
    if answer is None or not said:
        return None
    if options and (letter := choose(answer, options)):
        return letter
    if (number := read_number(said[-1])) is None:
        return normalise_text(said[-1])
    return str(number.value / {"%": 100, "‰": 1000}.get(number.unit, 1))


def pass_at(k: int, n: int, right: int) -> float:
    """The chance that at least one of k answers is right, of n of which `right` are: 1 - C(n - right, k) / C(n, k), the
    unbiased estimator of Chen et al., 2021 (arXiv 2107.03374, equation 1)."""
    return 1 - comb(n - right, k) / comb(n, k)


def vote(answers: Sequence[tuple[str | None, bool]]) -> tuple[float, bool]:
    """Whether the most frequent answer is right, and whether several are the most frequent. Of such a tie it is the
    share of the tied answers that are right: what a fair draw among them gives in the mean.

    Args:
        answers: what each counts as (`read_as`), and whether it is right.
    """
    votes = Counter(name for name, _ in answers if name is not None)
    if not votes:
        return 0.0, False
    most = max(votes.values())
    tied = {name for name, count in votes.items() if count == most}
    right = {name for name, correct in answers if correct and name in tied}
    return len(right) / len(tied), len(tied) > 1


@dataclass
class _Asked:
    """One question: what each answer counts as and whether it is right; how many the infrastructure lost."""

    picture: str = ""
    answers: list[tuple[str | None, bool]] = field(default_factory=list)
    lost: int = 0

    @property
    def right(self) -> int:
        return sum(correct for _, correct in self.answers)

    @property
    def n(self) -> int:
        return len(self.answers) + self.lost

    def vote_bounds(self) -> tuple[float, float]:
        """Lost answers may all be right and agree, or all be wrong and agree."""
        if not self.lost:
            return (vote(self.answers)[0],) * 2
        sure = sorted(Counter(name for name, _ in self.answers if name is not None).values(), reverse=True)
        ahead = (sure[0] - sure[1] if len(sure) > 1 else sure[0]) if sure else 0
        return (vote(self.answers)[0],) * 2 if ahead > self.lost else (0.0, 1.0)


class Samples:
    """Collects rows of a model's answers."""

    def __init__(self) -> None:
        self._asked: dict[str, _Asked] = defaultdict(_Asked)

    def add(self, row: AnswerRow) -> None:
        asked = self._asked[row.sample_of or row.id]
        asked.picture = row.picture or f"question {row.sample_of or row.id}"
        if row.status in LOST:
            asked.lost += 1
        else:
            asked.answers.append((row.read_as, row.correct))

    @property
    def questions(self) -> list[_Asked]:
        return list(self._asked.values())

    @property
    def each(self) -> int:
        """Answers to each question."""
        return max((asked.n for asked in self.questions), default=0)

    def figures(self) -> SampleFigures | None:
        """None where each question was asked once."""
        return over_seeds([self])


def over_seeds(seeds: Sequence[Samples]) -> SampleFigures | None:
    """None where a seed's questions were asked once, or not at all.

    Raises:
        UserError: each question was asked more often with one seed than with another.
    """
    often = sorted({seed.each for seed in seeds})
    if not often or often[0] == 0 or often == [1]:
        return None
    if len(often) > 1:
        said = " and ".join(map(str, often))
        raise UserError(f"the runs asked each question {said} times: pass@k needs as many with each seed", "samples")
    k = often[0]
    rising = sorted({*(2**power for power in range(1, k.bit_length())), k})
    asked = [seed.questions for seed in seeds]
    return SampleFigures(
        samples=k,
        questions=sum(map(len, asked)),
        average=_score(asked, lambda q: (q.right / q.n, (q.right + q.lost) / q.n)),
        pass_at={j: _score(asked, partial(_passes, j)) for j in rising},
        majority=_score(asked, _Asked.vote_bounds),
        ties=sum(vote(q.answers)[1] for seed in asked for q in seed),
    )


def _passes(j: int, q: _Asked) -> tuple[float, float]:
    return pass_at(j, q.n, q.right), pass_at(j, q.n, q.right + q.lost)


def measures(figures: SampleFigures) -> list[tuple[str, Score]]:
    """What is shown of them, under its name."""
    passed = [(f"pass@{k}", score) for k, score in figures.pass_at.items()]
    k = figures.samples
    return [(f"avg@{k}", figures.average), *passed, (f"majority of {k}", figures.majority)]


HEAD = ("Model", "Measure", "Score", "95 % interval")


def cells(models: Iterable[tuple[str, SampleFigures | None]]) -> list[tuple[str, ...]]:
    """Rows of a table of several models; none where questions were asked once."""
    return [
        (model, name, accuracy(score.mean, score.bounds), interval(score.ci95))
        for model, figures in models
        if figures is not None
        for name, score in measures(figures)
    ]


def ties(models: Iterable[tuple[str, SampleFigures | None]]) -> str:
    """How many votes were undecided, as a sentence; empty when none were."""
    counts = [
        f"{model} {figures.ties} of {figures.questions:,}" for model, figures in models if figures and figures.ties
    ]
    return f"Majority: {TIES}. Ties: {', '.join(counts)} questions." if counts else ""


def _score(seeds: Sequence[Sequence[_Asked]], value: Callable[[_Asked], tuple[float, float]]) -> Score:
    """The mean over seeds. `value` is of a question, at least and at most: the same where nothing was lost."""
    if any(q.lost for seed in seeds for q in seed):
        least = fmean(fmean(value(q)[0] for q in seed) for seed in seeds)
        most = fmean(fmean(value(q)[1] for q in seed) for seed in seeds)
        return Score(mean=None, bounds=(least, most))
    estimate = mean_over([[Answer(value(q)[0], q.picture) for q in seed] for seed in seeds], resamples=2000)
    return Score(mean=estimate.mean, ci95=estimate.ci95)
