"""Learning curves as inline SVG: drawn here because the page must be one file without a charting library."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from thinkimg.evaluation.curves import Curve

WIDTH, HEIGHT = 520, 260
LEFT, RIGHT, TOP, BOTTOM = 50, 14, 14, 40
MOST_LINES = 6


@dataclass(frozen=True)
class Line:
    """A curve; None where a step did not log the value."""

    name: str
    steps: Sequence[float]
    values: Sequence[float | None]

    @property
    def known(self) -> list[tuple[float, float]]:
        return [
            (float(step), float(value))
            for step, value in zip(self.steps, self.values, strict=True)
            if value is not None and math.isfinite(value)
        ]


@dataclass(frozen=True)
class Chart:
    title: str
    unit: str
    lines: Sequence[Line]
    svg: Markup


def learning_charts(curves: Sequence[Curve]) -> list[Chart]:
    """Reward, accuracy, tools and chains of a run's curves; only those that have something to show."""
    learning = [curve for curve in curves if curve.learns_by_reward]
    charts = [
        ("Reward", "mean reward per trajectory", [Line(c.label, c.steps, c.reward) for c in learning]),
        (
            "Accuracy while training",
            "share of sampled answers that are right",
            [Line(c.label, c.steps, c.accuracy) for c in learning],
        ),
    ]
    for curve in [curve for curve in learning if curve.tools][-1:]:
        for title, unit, columns in (
            ("Tool use", "calls per trajectory", curve.tools),
            ("Chains of tools", "share of trajectories", curve.chains),
        ):
            ranked = sorted(columns.items(), key=lambda item: -sum(item[1]))[:MOST_LINES]
            lines = [Line(name, curve.steps, values) for name, values in ranked]
            charts.append((f"{title}, {curve.label}", unit, lines))
    return [
        Chart(title, unit, shown, draw(title, unit, shown))
        for title, unit, lines in charts
        if (shown := [line for line in lines if line.known])
    ]


def draw(title: str, unit: str, lines: Sequence[Line]) -> Markup:
    """One chart. Colours are classes `c0`…`c5` of the page's style sheet, which knows light and dark."""
    xs = [x for line in lines for x, _ in line.known]
    ys = [y for line in lines for _, y in line.known]
    x_low, x_high = min(xs), max(max(xs), min(xs) + 1)
    ticks = axis_ticks(min(0.0, *ys), max(*ys, 0.05))
    y_low, y_high = ticks[0], ticks[-1]

    def x_of(x: float) -> float:
        return round(LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT), 1)

    def y_of(y: float) -> float:
        return round(HEIGHT - BOTTOM - (y - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM), 1)

    parts = []
    for tick in ticks:
        parts.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
                LEFT, WIDTH - RIGHT, y_of(tick), y_of(tick)
            )
        )
        parts.append(
            Markup('<text x="{}" y="{}" text-anchor="end">{}</text>').format(LEFT - 7, y_of(tick) + 4, f"{tick:g}")
        )
    for tick in (x for x in axis_ticks(x_low, x_high) if x_low <= x <= x_high and x == round(x)):
        parts.append(
            Markup('<text x="{}" y="{}" text-anchor="middle">{}</text>').format(
                x_of(tick), HEIGHT - BOTTOM + 18, f"{tick:g}"
            )
        )
    parts.append(
        Markup('<text class="axis" x="{}" y="{}" text-anchor="end">training step</text>').format(
            WIDTH - RIGHT, HEIGHT - 3
        )
    )
    for number, line in enumerate(lines):
        known = line.known
        raw = " ".join(f"{x_of(x)},{y_of(y)}" for x, y in known)
        calm = " ".join(
            f"{x_of(x)},{y_of(y)}" for (x, _), y in zip(known, moving_mean([y for _, y in known]), strict=True)
        )
        kind = f"c{number % MOST_LINES}"
        parts.append(Markup('<polyline class="raw {}" points="{}"/>').format(kind, raw))
        parts.append(
            Markup('<polyline class="calm {}" points="{}"><title>{}: {:.3g} at the end</title></polyline>').format(
                kind, calm, line.name, known[-1][1]
            )
        )
    summary = "; ".join(f"{line.name} from {line.known[0][1]:.2f} to {line.known[-1][1]:.2f}" for line in lines)
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, f"{title}, {unit}: {summary}", Markup("").join(parts)
    )


def axis_ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers that enclose `low`…`high`."""
    span = max(high - low, 1e-9)
    magnitude = 10.0 ** math.floor(math.log10(span / about))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if span / (factor * magnitude) <= about + 0.5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 10) for number in range(first, last + 1)]


def moving_mean(values: Sequence[float], window: int = 5) -> list[float]:
    """Centred; shorter at the ends, so that nothing is shifted in time."""
    half = window // 2
    nearby = (values[max(0, number - half) : number + half + 1] for number in range(len(values)))
    return [sum(near) / len(near) for near in nearby]
