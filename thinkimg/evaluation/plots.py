"""Learning curves as PNG files: reward, accuracy, tools and chains per step. matplotlib is loaded only here."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thinkimg.evaluation.curves import Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe & Ito (2008): told apart with every common kind of colour blindness. Yellow is left out: too pale for lines.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES = ("-", "--", "-.", ":")
MOST_LINES = 6


def write_plots(curves: Sequence[Curve], folder: Path) -> list[Path]:
    """Draw a run's curves; returns the files. None without matplotlib, or with nothing logged.

    Stages without rewards (SFT) have no curve here: their loss says nothing about the answers.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        return []
    learning = [curve for curve in curves if curve.learns_by_reward]
    with_tools = [curve for curve in learning if curve.tools]
    last = with_tools[-1] if with_tools else None
    plots: list[tuple[str, str, str, Mapping[str, tuple[Sequence[Any], Sequence[Any]]]]] = [
        ("reward", "Reward", "mean reward", {c.label: (c.steps, c.reward) for c in learning}),
        (
            "accuracy",
            "Accuracy while training",
            "share of answers right",
            {c.label: (c.steps, c.accuracy) for c in learning if _known(c.accuracy)},
        ),
    ]
    if last is not None:
        tools = {name: (last.steps, values) for name, values in _largest(last.tools).items()}
        plots.append(("tools", f"Tool use, {last.label}", "calls per trajectory", tools))
        chains = {name: (last.steps, values) for name, values in _largest(last.chains).items()}
        plots.append(("chains", f"Chains of tools, {last.label}", "share of trajectories", chains))
    drawn = [(name, title, unit, lines) for name, title, unit, lines in plots if lines]
    if drawn:
        folder.mkdir(parents=True, exist_ok=True)
    return [_plot(folder / f"{name}.png", title, unit, lines) for name, title, unit, lines in drawn]


def _plot(path: Path, title: str, unit: str, lines: Mapping[str, tuple[Sequence[Any], Sequence[Any]]]) -> Path:
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    figure = Figure(figsize=(7, 4), dpi=144, layout="constrained")
    axes: Axes = figure.subplots()
    for number, (name, (steps, values)) in enumerate(lines.items()):
        known = [(step, value) for step, value in zip(steps, values, strict=True) if value is not None]
        xs, ys = [step for step, _ in known], [float(value) for _, value in known]
        colour, dash = COLOURS[number % len(COLOURS)], DASHES[number % len(DASHES)]
        axes.plot(xs, ys, color=colour, alpha=0.25, linewidth=1)
        axes.plot(xs, smoothed(ys), dash, color=colour, linewidth=2, label=name.replace("$", r"\$"))
    axes.set_title(title, loc="left", fontweight="bold")
    axes.set_xlabel("training step")
    axes.set_ylabel(unit)
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    partial = path.with_name(path.name + ".partial")
    figure.savefig(partial, format="png")
    partial.replace(path)
    return path


def smoothed(values: Sequence[float], window: int = 5) -> list[float]:
    """Centred moving mean; shorter at the ends, so that nothing is shifted in time."""
    half = window // 2
    return [sum(near) / len(near) for near in (values[max(0, n - half) : n + half + 1] for n in range(len(values)))]


def _largest(columns: Mapping[str, list[float]]) -> dict[str, list[float]]:
    """The `MOST_LINES` most common ones; a plot with more lines is not read."""
    ranked = sorted(columns, key=lambda name: -sum(columns[name]))
    return {name: columns[name] for name in ranked[:MOST_LINES]}


def _known(values: Sequence[Any]) -> bool:
    return any(value is not None for value in values)
