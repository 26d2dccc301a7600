import json
import shutil

import pytest
from rich.console import Console

from tests.support.viewer.fabricated_run import rows
from thinkimg.errors import UserError
from thinkimg.evaluation.origins import ordered_models
from thinkimg.evaluation.report import collect, read_results, terminal_table, write_report
from thinkimg.evaluation.seeds import write_table
from thinkimg.evaluation.summary import summarise
from thinkimg.figures import duration
from thinkimg.jsonfile import read
from thinkimg.message import ToolResultBlock
from thinkimg.results import KindFigures, TableResults
from thinkimg.trajectory import Trajectory, read_trajectories


def answered(correct, calls=0, error=None, kind="value", **rest):
    one = Trajectory(question="?", correct=correct, status="answered", meta={"kind": kind}, **rest)
    for number in range(calls):
        one.add("tool", ToolResultBlock(call_id=f"c{number}", name="OCR", text="", error=error))
    return one


def test_summarise_counts_answers_calls_and_errors():
    greedy = [answered(True, calls=2), answered(False, calls=1, error="bad_arguments"), answered(True, kind="count")]
    entry = summarise(rows(greedy), rows([answered(False), answered(True)]), seconds=4.5)
    assert entry.accuracy == pytest.approx(2 / 3)
    assert entry.accuracy_sampled == 0.5
    assert entry.ci95[0] < 2 / 3 < entry.ci95[1]
    assert entry.n == 3
    assert entry.tool_calls_per_answer == 1.0
    assert entry.tools == {"OCR": 3}
    assert entry.errors == {"bad_arguments": 1}
    assert entry.by_kind["value"] == KindFigures(accuracy=0.5, accuracy_sampled=0.5, n=2)
    assert entry.by_kind["count"] == KindFigures(accuracy=1.0, accuracy_sampled=None, n=1)
    assert entry.seconds == 4.5
    json.dumps(entry.model_dump(), allow_nan=False)


def test_an_infrastructure_failure_is_nobodys_answer():
    broken = Trajectory(question="?", status="infrastructure", meta={"kind": "value"})
    entry = summarise(rows([answered(True), broken]), rows([broken]))
    assert (entry.n, entry.infrastructure, entry.infrastructure_sampled) == (1, 1, 1)
    assert (entry.accuracy, entry.ci95, entry.bounds) == (None, None, (0.5, 1.0)), "not told as if it were complete"
    assert (entry.accuracy_sampled, entry.bounds_sampled) == (None, (0.0, 1.0))
    assert entry.by_kind["value"] == KindFigures(accuracy=None, n=1, bounds=(0.5, 1.0))


def test_an_answer_that_an_earlier_version_ended_by_the_clock_is_nobodys_either():
    late = Trajectory(question="?", status="time", correct=False, meta={"kind": "value"})
    assert summarise(rows([answered(True), late])).bounds == (0.5, 1.0)


def test_a_limit_is_a_wrong_answer():
    stopped = Trajectory(question="?", status="rounds", correct=False, meta={"kind": "value"})
    assert summarise(rows([answered(True), stopped])).accuracy == 0.5


def test_summarise_of_nothing_is_plain_data():
    entry = summarise([], [])
    assert (entry.accuracy, entry.n, entry.ci95) == (None, 0, (0.0, 1.0))


def test_the_table_has_the_papers_order_and_strangers_last():
    assert ordered_models(["mine", "v-toolrl", "base", "text-rl"]) == ["base", "text-rl", "v-toolrl", "mine"]


def test_a_report_is_markdown_with_the_table_and_plots_that_exist(run):
    report = write_report(run)
    text = (run / "results.md").read_text()
    lines = text.splitlines()
    models = [line.split(" | ")[0].strip("| ") for line in lines if line.startswith("| ")]
    assert models[2:8] == ["Base (zero-shot)", "SFT, no tools", "Text-only RL", "SFT", "SFT, continued", "V-ToolRL"]
    assert text.startswith("# charts-on-a-laptop\n")
    assert "| OCR | 1,873 | 16,857 |" in text
    assert [path.rpartition("/")[2] for path in report.plots] == [
        "reward.png",
        "accuracy.png",
        "tools.png",
        "chains.png",
    ]
    for path in report.plots:
        assert (run / path).read_bytes().startswith(b"\x89PNG")
    assert not list(run.rglob("*.partial"))


def test_curves_are_columns_and_a_resumed_step_counts_once(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    log = copy / "stages" / "v-toolrl" / "log.jsonl"
    lines = log.read_text().splitlines()
    again = json.loads(lines[4]) | {"reward": 0.5, "tools": {"Crop": 1.0}}
    log.write_text("\n".join([*lines, json.dumps(again)]) + "\n")
    curve = next(one for one in collect(copy).curves if one.stage == "v-toolrl")
    assert curve.steps == list(range(1, 41))
    assert curve.reward[4] == 0.5
    assert curve.tools["Crop"][3:6] == [0.0, 1.0, 0.0]
    assert len(curve.tools["OCR"]) == 40


def test_terminal_table_fits_a_terminal(run):
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(terminal_table(collect(run)))
    text = console.export_text()
    rows = text.strip().splitlines()
    assert len(rows) == 1 + len(read_results(run).models), "no row is wrapped"
    assert "Base (zero-shot)" in text
    assert "V-ToolRL" in rows[-1]


@pytest.mark.parametrize("content", [None, "not JSON", "[]", '{"models": 3}'])
def test_a_run_without_results_is_the_users_error(tmp_path, content):
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    with pytest.raises(UserError, match=r"results\.json"):
        write_report(tmp_path)


def test_a_minimal_run_is_reported_without_logs_and_manifest(tmp_path):
    entry = {"accuracy": 0.5, "accuracy_sampled": None, "ci95": [0.2, 0.8], "n": 6, "tool_calls_per_answer": 0}
    (tmp_path / "results.json").write_text(json.dumps({"models": {"base": entry}}))
    assert write_report(tmp_path).plots == []
    assert "| Base (zero-shot) | 50.0 % | 20.0 – 80.0 | – |" in (tmp_path / "results.md").read_text()


@pytest.mark.parametrize(
    ("seconds", "words"), [(None, "–"), (4.24, "4.2 s"), (59.96, "60.0 s"), (61, "1 min 01 s"), (7260, "2 h 01 min")]
)
def test_durations_read_well(seconds, words):
    assert duration(seconds) == words


# ---- several seeds --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    from tests.support.viewer.fabricated_run import write_run

    folder = tmp_path_factory.mktemp("seeds")
    models = {"base": 0.08, "sft": 0.5, "v-toolrl": 0.95}
    return [write_run(folder / f"seed-{n}", seed=n, questions=60, steps=10, models=models) for n in range(3)]


def test_the_table_over_seeds_has_means_intervals_and_paired_differences(seeds, tmp_path):
    table = write_table(seeds, tmp_path / "table")
    assert read(tmp_path / "table" / "results.json", TableResults) == table
    assert list(table.seeds) == ["0", "1", "2"]
    best = table.mean.models["v-toolrl"]
    per_seed = [table.seeds[seed].models["v-toolrl"].accuracy for seed in "012"]
    assert best.per_seed == pytest.approx(per_seed)
    assert best.accuracy == pytest.approx(sum(per_seed) / 3)
    assert best.ci95[0] < best.accuracy < best.ci95[1]
    assert best.n == 180
    difference = next(one for one in table.mean.differences if one.other == "sft")
    assert difference.accuracy.difference == pytest.approx(best.accuracy - table.mean.models["sft"].accuracy)
    assert difference.accuracy.p < 0.01
    text = (tmp_path / "table" / "results.md").read_text()
    assert "| V-ToolRL minus SFT |" in text
    assert "Seed 2" in text


def test_two_runs_of_one_seed_are_refused(seeds, tmp_path):
    with pytest.raises(UserError, match="different seeds"):
        write_table([seeds[0], seeds[0]], tmp_path)


def test_a_model_without_trajectories_is_refused(seeds, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(seeds[0], copy)
    shutil.rmtree(copy / "stages" / "table" / "sft")
    with pytest.raises(UserError, match="no greedy trajectories of 'sft'"):
        write_table([copy], tmp_path / "table")


def test_the_fabricated_run_is_made_of_real_records(run):
    found = list(read_trajectories(run / "stages" / "table" / "v-toolrl" / "greedy.jsonl"))
    for one in found:
        one.check(image_token=400, image_tokens=lambda image: 9)
