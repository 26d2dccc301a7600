"""The table over seeds in words and Markdown."""

from collections.abc import Mapping

from thinkimg.evaluation import owed, samples
from thinkimg.evaluation.compare import in_words
from thinkimg.evaluation.markdown import markdown_rows
from thinkimg.evaluation.origins import display_name
from thinkimg.evaluation.roles import in_words as scorers_in_words
from thinkimg.evaluation.roles import role_of, roles_beside, score_of, shown_roles
from thinkimg.figures import UNKNOWN, accuracy, duration, interval, percent, rate
from thinkimg.results import ComparedModels, PairedDifference, SeedsFigures, TableResults


def as_markdown(table: TableResults) -> str:
    seeds, models = list(table.seeds), table.mean.models
    scores = [figures.scores for figures in models.values()]
    roles = shown_roles(scores)
    head = ("Model", "Accuracy", "95 % interval", *map(str.capitalize, roles), *(f"Seed {seed}" for seed in seeds))
    head += ("Sampled (T = 1)", "95 % interval", "Tool calls per answer", "Training")
    rows = [_cells(model, figures, roles, len(seeds)) for model, figures in models.items()]
    parts = [[_method(len(seeds))], markdown_rows(head, rows)]
    if roles:
        parts.append([scorers_in_words(scores)])
    lost = [f"{display_name(name)} {figures.lost:,}" for name, figures in models.items() if figures.lost]
    if lost:
        parts.append([f"Lost to the infrastructure, so neither right nor wrong: answers of {', '.join(lost)}."])
    parts.append(_differences(table.mean.differences, roles_beside(scores)))
    parts += _sampled(models) + _changed(models)
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _differences(found: list[ComparedModels], roles: list[str]) -> list[str]:
    if not found:
        return ["No differences are shown: none of these models is known to be trained by the job."]
    rows = [
        (
            f"{display_name(one.model)} minus {display_name(one.other)}",
            in_words(one.accuracy),
            *(in_words(_in_role(one, role)) for role in roles),
            in_words(one.accuracy_sampled),
        )
        for one in found
    ]
    return markdown_rows(("Difference in points (paired)", "Greedy", *map(str.capitalize, roles), "Sampled"), rows)


def _in_role(found: ComparedModels, role: str) -> PairedDifference | None:
    return next((said for name, said in found.scores.items() if role_of(name) == role), None)


def _sampled(models: Mapping[str, SeedsFigures]) -> list[list[str]]:
    named = [(display_name(model), figures.samples) for model, figures in models.items()]
    rows, ties = samples.cells(named), samples.ties(named)
    parts = [["Several answers to each question:"], markdown_rows(samples.HEAD, rows)] if rows else []
    return [*parts, [ties]] if ties else parts


def _changed(models: Mapping[str, SeedsFigures]) -> list[list[str]]:
    rows = owed.cells((display_name(model), figures.controls) for model, figures in models.items())
    return [["The same questions with changed pictures:"], markdown_rows(owed.HEAD, rows)] if rows else []


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


def _cells(model: str, figures: SeedsFigures, roles: list[str], seeds: int) -> tuple[str, ...]:
    return (
        display_name(model),
        accuracy(figures.accuracy, figures.bounds, figures.refused, figures.context_full),
        interval(figures.ci95),
        *(accuracy(found[1].mean, found[1].bounds) for role in roles if (found := score_of(figures.scores, role))),
        *(map(percent, figures.per_seed) if figures.per_seed else [UNKNOWN] * seeds),
        accuracy(
            figures.accuracy_sampled, figures.bounds_sampled, figures.refused_sampled, figures.context_full_sampled
        ),
        interval(figures.ci95_sampled),
        rate(figures.tool_calls_per_answer),
        duration(figures.training_seconds),
    )
