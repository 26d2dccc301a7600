"""What `thinkimg run` says while it works, off a terminal and on one."""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from thinkimg.api import load_manifest
from thinkimg.api.pod_contract import ProgressLine
from thinkimg.jobs.runner.forecast import Forecast
from thinkimg.jobs.runner.screen import LONGEST_SILENCE, Bars, Course, Lines, announce, figures_in_words
from thinkimg.results import BaseDone, GRPODone, SFTDone, SynthesizeDone

DEMO = Path("manifests/toolrljob-cpu.yaml")
FULL_SIZE = Path("manifests/toolrljob.yaml")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def course_of(manifest: Path, clock: Clock, only: int | None = None) -> Course:
    job = load_manifest(manifest).job(None)
    names = ["base", *(stage.name for stage in job.spec.stages)]
    return Course(job, Forecast(job), names[-only:] if only else names, len(names), clock)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def written() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def lines(clock: Clock, written: io.StringIO) -> Lines:
    return Lines(Console(file=written), course_of(DEMO, clock))


def said(written: io.StringIO) -> list[str]:
    """Without the time of day, which each line begins with."""
    found = written.getvalue().splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in found), found
    return [line[9:] for line in found]


def test_a_log_tells_stage_steps_figures_and_what_is_left(lines, clock, written):
    lines.begin("base", 0)
    clock.now = 20.0
    lines.hear(ProgressLine("base", 300, 1200, "pre-training", figures={"loss": 0.31}))
    clock.now = 80.0
    lines.end(BaseDone(loss=0.1), "loss 0.1")
    begun, heard, ended = said(written)
    assert re.fullmatch(r"base begins: stage 1 of 8; about \d+ min left", begun)
    assert re.fullmatch(r"base: pre-training, 300 of 1,200, loss 0.31, for 20 s; about \d+ min left", heard)
    assert re.fullmatch(r"base is done after 1 min 20 s: loss 0.1; about \d+ min left", ended)


def test_a_log_is_never_silent_for_a_minute(lines, clock, written):
    lines.begin("base", 0)
    for _ in range(600):
        clock.now += 1.0
        lines.break_silence()
    assert len(said(written)) == 1 + 600 // LONGEST_SILENCE
    assert LONGEST_SILENCE < 60


def test_many_steps_are_few_lines(lines, clock, written):
    lines.begin("base", 0)
    for step in range(1000):
        clock.now += 0.1
        lines.hear(ProgressLine("base", step, 1000))
    assert 5 < len(said(written)) < 10


def test_a_new_message_is_told_at_once(lines, clock, written):
    lines.begin("base", 0)
    lines.note("starting tools")
    lines.hear(ProgressLine("base", message="3 samples are left out, see broken.json"))
    lines.hear(ProgressLine("base", message="3 samples are left out, see broken.json"))
    assert [line.split(";")[0].split(",")[0] for line in said(written)] == [
        "base begins: stage 1 of 8", "base: starting tools", "base: 3 samples are left out",
    ]  # fmt: skip


def test_what_a_model_or_a_stage_says_is_no_markup(lines, written):
    lines.begin("base", 0)
    lines.hear(ProgressLine("base", message="[red]tokens[/] like [/INST] are text"))
    assert "[red]tokens[/] like [/INST] are text" in said(written)[-1]


def test_the_lines_are_whole_in_a_narrow_log(clock):
    written = io.StringIO()
    lines = Lines(Console(file=written, width=40), course_of(DEMO, clock))
    lines.begin("base", 0)
    lines.hear(ProgressLine("base", 1, 2, "a message that is longer than forty characters are"))
    assert len(said(written)) == 2


def test_the_last_stage_leaves_nothing(clock, written):
    lines = Lines(Console(file=written), course_of(DEMO, clock, only=1))
    lines.begin("table", 0)
    clock.now = 90.0
    lines.end(SynthesizeDone(), "right: base 4.5 %")
    assert said(written)[-1] == "table is done after 1 min 30 s: right: base 4.5 %"


def test_the_list_at_the_beginning_says_what_will_happen(clock, written):
    announce(Console(file=written), course_of(DEMO, clock))
    first, *rows = written.getvalue().splitlines()
    assert re.fullmatch(
        r"8 stages to run, about \d+ min on two quiet cores \(the first stages tell how fast this machine is\):", first
    )
    assert [row.split()[0] for row in rows] == [
        "base", "cold-start", "text-sft", "sft", "text-rl", "v-toolrl", "sft-long", "table",
    ]  # fmt: skip
    assert all(re.search(r" \(about \d+ (s|min)\)$", row) for row in rows)
    assert "make 2,000 trajectories by the scripted planner" in rows[1]
    assert "RL, 100 steps of 12 questions × 8 rollouts, without tools" in rows[4]
    assert "ask 6 models 400 questions" in rows[7]


def test_of_a_model_that_was_never_timed_no_time_is_promised(clock, written):
    announce(Console(file=written), course_of(FULL_SIZE, clock))
    assert "about" not in written.getvalue()
    lines = Lines(Console(file=written), course_of(FULL_SIZE, clock))
    lines.begin("base", 0)
    assert "cannot be foretold yet" in written.getvalue()


def test_a_terminal_shows_the_stages_to_come_and_how_each_ended(clock):
    console = Console(file=io.StringIO(), force_terminal=True, width=200, color_system=None)
    course = course_of(DEMO, clock)
    with Bars(console, course) as bars:
        bars.begin("base", 0)
        clock.now = 80.0
        bars.hear(ProgressLine("base", 600, 1200, figures={"loss": 0.2}))
        bars.end(BaseDone(loss=0.1), "loss 0.1")
        bars.begin("cold-start", 0)
        bars.hear(ProgressLine("cold-start", 500, 2000))
        shown = Console(file=io.StringIO(), width=200)
        shown.print(bars._progress.make_tasks_table(bars._progress.tasks))
    rows = shown.file.getvalue().splitlines()
    assert len(rows) == 8
    assert "done in 1 min 20 s: loss 0.1" in rows[0]
    assert re.search(r"500 of 2,000 · about \d+ min left", rows[1])
    assert all(re.search(r"about \d+ (s|min)$", row.rstrip()) for row in rows[2:])


def test_figures_are_said_as_people_say_them():
    figures = {
        "reward": 0.7123,
        "accuracy": 0.64,
        "tool_calls": 1.84,
        "flat": 0.25,
        "lost": 3,
        "loss": 0.0213,
        "kl": 0.5,
    }
    assert figures_in_words(ProgressLine("rl", figures=figures)) == (
        "reward 0.71, 64.0 % right, 1.8 tool calls, 25.0 % of groups all alike, 3 lost, loss 0.0213, kl 0.5"
    )


# ---- the forecast ---------------------------------------------------------------------------------------------------


def test_a_slower_machine_is_noticed_after_its_first_stages(clock):
    course = course_of(DEMO, clock)
    forecast = course.forecast
    before = {name: forecast.seconds(name) for name in course.to_do}
    forecast.finished("base", BaseDone(), 3 * before["base"])
    forecast.finished("cold-start", SynthesizeDone(), 3 * before["cold-start"])
    for name in course.to_do[2:]:
        assert forecast.seconds(name) == pytest.approx(3 * before[name])


def test_a_stages_own_speed_counts_once_it_is_under_way(clock):
    course = course_of(DEMO, clock)
    course.to_do = ["v-toolrl"]
    course.begin("v-toolrl", 0)
    clock.now = 500.0
    course.stage.hear(ProgressLine("v-toolrl", 50, 100))
    assert course.left.seconds == pytest.approx(500.0)


def test_a_training_that_went_on_is_timed_from_its_checkpoint_and_teaches_nothing(clock):
    course = course_of(DEMO, clock)
    course.begin("v-toolrl", 80)
    clock.now = 50.0
    course.stage.hear(ProgressLine("v-toolrl", 90, 100))
    assert course.forecast.left(["v-toolrl"], course.elapsed, course.stage.share).seconds == pytest.approx(50.0)
    course.end(GRPODone())
    assert "v-toolrl" not in course.forecast.took


def test_a_base_from_the_cache_does_not_make_the_machine_fast(clock):
    course = course_of(DEMO, clock)
    course.begin("base", 0)
    clock.now = 1.0
    course.end(BaseDone(seconds=100.0))
    assert course.forecast.took == {}


def test_rl_teaches_how_long_the_sft_of_as_many_tokens_takes(clock):
    course = course_of(DEMO, clock)
    few, many = Forecast(course.job), Forecast(course.job)
    few.finished("v-toolrl", GRPODone.model_validate({"tokens": {"generated": 1000, "trained": 1000}}), None)
    many.finished("v-toolrl", GRPODone.model_validate({"tokens": {"generated": 3000, "trained": 3000}}), None)
    assert many.seconds("sft-long") == pytest.approx(3 * few.seconds("sft-long"))


def test_a_full_size_job_is_foretold_by_its_own_stages_of_the_same_type(clock):
    job = load_manifest(FULL_SIZE).job(None)
    forecast = Forecast(job)
    trainings = [stage.name for stage in job.spec.stages if stage.sft]
    forecast.finished(trainings[0], SFTDone(), 3600.0)
    assert forecast.seconds(trainings[0]) == 3600.0
    unknown = forecast.left([stage.name for stage in job.spec.stages if stage.grpo]).unknown
    assert unknown == tuple(stage.name for stage in job.spec.stages if stage.grpo)
