"""The figures of one evaluation on a terminal."""

from thinkimg.evaluation import owed
from thinkimg.evaluation.output import ITEMS
from thinkimg.evaluation.samples import TIES, measures
from thinkimg.figures import accuracy, interval, rate
from thinkimg.results import EvaluationResults


def show(results: EvaluationResults) -> None:
    """The figures of one task on standard output."""
    samples = results.samples
    asked = (
        f"{samples.samples} answers to each of {samples.questions}"
        if samples
        else f"{results.n + results.infrastructure}"
    )
    print(f"{results.task}: {results.model}, {asked} questions")
    for number, (scorer, score) in enumerate(results.scores.items()):
        said = accuracy(score.mean, score.bounds, results.refused, results.context_full)
        by = f"by {score.judged_by}" if score.judged_by else ""
        kind = ", ".join(word for word in (score.role, by, "" if number else "decides") if word)
        print(f"  {scorer}{f' ({kind})' if kind else ''}: {said} (95 %: {interval(score.ci95)})")
    for name, score in measures(samples) if samples else ():
        print(f"  {name}: {accuracy(score.mean, score.bounds)} (95 %: {interval(score.ci95)})")
    if samples and samples.ties:
        print(f"  {samples.ties} questions have several most frequent answers; {TIES}")
    if unanswered := results.refused + results.context_full:
        print(f"  {unanswered} counted as wrong without an answer; {ITEMS} says which, by status")
    print(f"  tool calls per answer: {rate(results.tool_calls_per_answer)}; errors: {results.errors or 'none'}")
    for name, metrics in results.lmms_eval.items():
        told = ", ".join(f"{metric} = {value:g}" for metric, value in metrics.items())
        print(f"  lmms-eval, {name}: {told}")
    for note in owed.notes(owed.cells([(results.model, results.controls)])):
        print(f"  {note.removeprefix(f'{results.model}: ')}")
    if results.infrastructure:
        print(f"  {results.infrastructure} answers were lost to the infrastructure; run again to ask them again")
