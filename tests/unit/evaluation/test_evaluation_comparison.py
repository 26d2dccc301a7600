"""Comparisons of models: the statistics against independent ones, and the tables."""

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats

from thinkimg.errors import UserError
from thinkimg.evaluation.compare import Known, paired_difference
from thinkimg.evaluation.formats import FORMATS, as_csv, as_json, as_latex, as_markdown
from thinkimg.evaluation.tables import compare
from thinkimg.results import PairedDifference


def compared(a: np.ndarray, b: np.ndarray, resamples: int = 1000) -> PairedDifference:
    def answered(values: np.ndarray) -> dict[str, Known]:
        return {str(n): Known(float(value), float(value), str(n), 1) for n, value in enumerate(values)}

    found = paired_difference([answered(a)], [answered(b)], resamples)
    assert found is not None
    return found


def test_models_that_are_equally_good_are_told_apart_in_five_percent_of_comparisons() -> None:
    """1,000 pairs whose answers to a question depend on each other, as those of two checkpoints do."""
    chance = np.random.default_rng(11)
    excluded = significant = 0
    for _ in range(1000):
        hard = chance.beta(1.2, 1.2, size=250)
        a, b = (chance.random(250) < hard).astype(float), (chance.random(250) < hard).astype(float)
        found = compared(a, b)
        excluded += not found.ci95[0] <= 0 <= found.ci95[1]
        significant += found.p < 0.05
    assert 30 <= excluded <= 70
    assert 30 <= significant <= 70


def test_a_difference_that_is_there_is_found() -> None:
    chance = np.random.default_rng(12)
    found = 0
    for _ in range(100):
        a, b = (chance.random(500) < 0.6).astype(float), (chance.random(500) < 0.5).astype(float)
        found += compared(a, b).p < 0.05
    assert found >= 80  # the power of this test is 0.89 by the normal approximation


@pytest.mark.slow
@pytest.mark.parametrize("partial", [False, True], ids=["right or wrong", "partial credit"])
def test_it_agrees_with_an_independent_bootstrap_and_a_permutation_test(partial: bool) -> None:
    chance = np.random.default_rng(13)
    for number, share in enumerate((0.5, 0.55, 0.6, 0.65)):
        a, b = (chance.random(400) < share).astype(float), (chance.random(400) < 0.5).astype(float)
        if partial:
            a, b = a * chance.random(400), b * chance.random(400)
        ours = compared(a, b, 20_000)
        theirs = scipy.stats.bootstrap(
            (a, b), lambda x, y, axis: np.mean(x - y, axis=axis), paired=True, vectorized=True, method="percentile",
            n_resamples=20_000, rng=number,
        )  # fmt: skip
        assert ours.difference == pytest.approx(np.mean(a - b))
        assert ours.ci95 == pytest.approx(tuple(theirs.confidence_interval), abs=0.004)
        permuted = scipy.stats.permutation_test(
            (a, b), lambda x, y, axis: np.mean(x - y, axis=axis), permutation_type="samples", vectorized=True,
            n_resamples=20_000, rng=number,
        )  # fmt: skip
        # Differences of right and wrong lie on a lattice, and the two count ties on it otherwise.
        assert ours.p == pytest.approx(permuted.pvalue, abs=0.08 if permuted.pvalue > 0.1 else 0.01)


# ---- tables ---------------------------------------------------------------------------------------------------------


def write_output(folder: Path, model: str, right: list[bool], task: str = "charts", lost: int = 0, **more: Any) -> Path:
    """As `thinkimg eval` writes it."""
    out = folder / task
    out.mkdir(parents=True)
    items = [
        {"id": f"q{n}", "status": "answered", "correct": ok, "scores": {"exact": float(ok), "fuzzy": ok * 0.5 + 0.25}}
        for n, ok in enumerate(right)
    ]
    items += [{"id": f"q{len(right) + n}", "status": "infrastructure", "correct": False} for n in range(lost)]
    (out / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    results = {"task": task, "model": model, "infrastructure": lost, "tool_calls_per_answer": 1.5, "malformed": 2}
    (out / "results.json").write_text(json.dumps(results | {"errors": {"refused": 2}} | more))
    costs = {"seconds_per_answer": {"mean": 1.0, "p50": 0.5, "p95": 2.0}, "cost": 0.25}
    (out / "costs.json").write_text(json.dumps(costs))
    return folder


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    return [
        write_output(tmp_path / "a", "base_model", (rng.random(200) < 0.4).tolist()),
        write_output(tmp_path / "b", "with tools", (rng.random(200) < 0.6).tolist()),
    ]


def test_a_table_has_a_row_per_model_and_the_paired_difference(two: list[Path]) -> None:
    found = compare(two)
    base, tools = found.entries
    assert (base.model, base.questions, base.lost, base.errors) == ("base_model", 200, 0, 4 / 200)
    (pair,) = found.pairs
    assert (pair.model, pair.baseline, pair.n) == ("with tools", "base_model", 200)
    assert pair.difference.difference == pytest.approx(tools.mean - base.mean)
    (turned,) = compare(two, baseline="with tools").pairs
    assert turned.difference.difference == pytest.approx(-pair.difference.difference)


def test_what_was_refused_stands_beside_the_score_in_every_format(tmp_path: Path) -> None:
    found = compare([write_output(tmp_path / "a", "m", [True, False, False, False], refused=2, context_full=1)])
    assert "| charts | m | 4 | 25.0 %, 2 refused, 1 context full |" in as_markdown(found)
    (row,) = csv.DictReader(io.StringIO(as_csv(found)))
    assert (row["score"], row["refused"], row["context_full"], row["lost"]) == ("0.25", "2", "1", "0")
    assert json.loads(as_json(found))["models"][0]["refused"] == 2
    assert r"25.0 \%, 2 refused, 1 context full" in as_latex(found)


def test_every_format_says_the_same(two: list[Path]) -> None:
    found = compare(two)
    mean, points = found.entries[1].mean, found.pairs[0].difference.difference
    text = as_markdown(found)
    assert f"| charts | with tools | 200 | {100 * mean:.1f} % |" in text
    assert f"| charts | with tools | base_model | 200 | {100 * points:+.1f} |" in text
    rows = list(csv.DictReader(io.StringIO(as_csv(found))))
    assert float(rows[1]["score"]) == mean
    assert float(rows[1]["difference"]) == points
    assert rows[0]["difference"] == ""
    document = json.loads(as_json(found))
    assert document["models"][1]["mean"] == mean
    assert document["differences"][0]["difference"]["difference"] == points
    latex = as_latex(found)
    assert rf"with tools & 200 & {100 * mean:.1f} \% &" in latex
    assert r"base\_model" in latex
    assert re.search(r"(?<!\\)[%_]", latex) is None
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 2
    assert set(FORMATS) == {"md", "csv", "tex", "json"}


def test_names_are_executed_by_no_program_that_reads_a_table(tmp_path: Path) -> None:
    formula, command = "=cmd|' /C calc'!A1", r"\input{/etc/passwd} ~^ 5% _ & # $"
    found = compare([write_output(tmp_path / "a", formula, [True]), write_output(tmp_path / "b", command, [True])])
    rows = list(csv.DictReader(io.StringIO(as_csv(found))))
    assert {value for row in rows for value in row.values() if value and value.startswith(("=", "@"))} == set()
    assert any(formula in (value or "") for row in rows for value in row.values())
    latex = as_latex(found)
    assert r"\input" not in latex
    assert r"\textbackslash{}input\{/etc/passwd\} \textasciitilde{}\textasciicircum{} 5\% \_ \& \# \$" in latex


def test_what_was_lost_is_neither_right_nor_wrong_in_every_format(two: list[Path], tmp_path: Path) -> None:
    found = compare([two[0], write_output(tmp_path / "c", "unlucky", [True] * 60 + [False] * 20, lost=20)])
    assert found.entries[1].bounds == (0.6, 0.8)
    assert (found.entries[1].mean, found.entries[1].ci95, found.pairs[0].n) == (None, None, 80)
    assert "| charts | unlucky | 80 | incomplete, 60.0 – 80.0 % | – |" in as_markdown(found)
    base = sum(known.least for name, known in found.entries[0].scores.items() if int(name[1:]) < 100)
    difference = found.pairs[0].difference
    assert (difference.difference, difference.ci95, difference.p) == (None, None, None), "it would flatter"
    assert difference.bounds == pytest.approx(((60 - base) / 100, (80 - base) / 100))
    least, most = (f"{100 * bound:+.1f}" for bound in difference.bounds)
    assert f"| base_model | 80 | incomplete, {least} to {most} | – | – |" in as_markdown(found)
    row = list(csv.DictReader(io.StringIO(as_csv(found))))[1]
    assert (row["difference"], float(row["difference_least"])) == ("", difference.bounds[0])
    assert json.loads(as_json(found))["differences"][0]["difference"]["bounds"] == [*difference.bounds]
    assert (row["score"], row["low"], row["lost"], row["least"], row["most"]) == ("", "", "20", "0.6", "0.8")
    assert json.loads(as_json(found))["models"][1]["bounds"] == [0.6, 0.8]
    assert r"unlucky & 80 & incomplete, 60.0 -- 80.0 \% & --" in as_latex(found)


def test_another_score_can_be_compared_and_partial_credit_has_its_own_interval(two: list[Path]) -> None:
    found = compare(two, scorer="fuzzy")
    entry = found.entries[0]
    assert entry.mean == pytest.approx(0.25 + 0.5 * compare(two).entries[0].mean)
    assert entry.ci95[0] < entry.mean < entry.ci95[1]


def test_what_cannot_be_compared_is_refused(two: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there are exact, fuzzy; run `thinkimg eval` again with --scorer judge"):
        compare(two, scorer="judge")
    with pytest.raises(UserError, match="base_model, with tools"):
        compare(two, baseline="mine")
    with pytest.raises(UserError, match="two results of base_model on charts"):
        compare([two[0], two[0]])
    with pytest.raises(UserError, match="finish it with `thinkimg eval`"):
        compare([tmp_path / "nothing"])
    other = write_output(tmp_path / "c", "third", [True], task="vstar")
    assert [pair.task for pair in compare([*two, other]).pairs] == ["charts"]
