import base64
import hashlib
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tests.support.viewer.fabricated_run import HOSTILE
from thinkimg.evaluation.report import collect, terminal_table, write_report
from thinkimg.viewer.curves import axis_ticks, learning_charts
from thinkimg.viewer.page import embed_json, write_page
from thinkimg.viewer.sample import find_sources, overlay


@pytest.fixture(scope="module")
def page(run, tmp_path_factory):
    path = write_page(run, collect(run), tmp_path_factory.mktemp("page") / "report.html")
    return path.read_text(encoding="utf-8")


def block(page: str, name: str) -> dict:
    return json.loads(re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', page, re.S)[1])


class Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict]] = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_the_page_asks_nothing_of_the_network(page):
    elements = Elements()
    elements.feed(page)
    references = [
        value for _, attributes in elements.found for key, value in attributes.items() if key in ("src", "href")
    ]
    assert all(value.startswith(("#", "data:")) for value in references)
    assert "@import" not in page
    assert "url(" not in page


def test_the_policy_lets_only_the_pages_own_script_run(page):
    script = re.search(r"<script>(.*?)</script>", page, re.S)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page
    assert "default-src 'none'" in page


def test_every_trajectory_and_every_picture_is_there_once(page, run):
    data, pictures = block(page, "data"), block(page, "pictures")
    written = sum(len(path.read_text().splitlines()) for path in run.glob("stages/**/*.jsonl") if path.stem != "log")
    assert len(data["trajectories"]) == written
    assert len({one["id"] for one in data["trajectories"]}) == written
    shown = {image["sha"] for one in data["trajectories"] for image in one["images"].values()}
    assert set(pictures) == shown
    assert all(uri.startswith("data:image/") for uri in pictures.values())
    for uri in set(pictures.values()):
        assert page.count(uri) == 1
    assert f"All {written:,} trajectories" in page


def test_what_a_picture_says_is_text(page):
    assert HOSTILE not in page
    elements = Elements()
    elements.feed(page)
    assert sum(tag == "script" for tag, _ in elements.found) == 3
    assert not any(tag == "img" for tag, _ in elements.found)
    assert HOSTILE in "".join(
        block["text"]
        for one in block(page, "data")["trajectories"]
        for turn in one["turns"]
        for block in turn["blocks"]
        if block["type"] == "tool_result"
    )


@given(st.text() | st.just("</script><!--") | st.just("\u2028"))
def test_json_cannot_leave_its_element(text):
    markup = str(embed_json({"text": text}))
    assert not set("<>&") & set(markup)
    assert markup.isascii()
    assert json.loads(markup) == {"text": text}


def test_names_from_the_manifest_are_escaped(run, tmp_path):
    report = replace(collect(run), name=HOSTILE)
    text = write_page(run, report, tmp_path / "page.html").read_text(encoding="utf-8")
    assert HOSTILE not in text
    assert "&lt;script&gt;" in text


def test_a_small_budget_takes_an_even_sample_and_says_so(run, tmp_path):
    path = write_page(run, collect(run), tmp_path / "page.html", max_bytes=400_000)
    assert path.stat().st_size < 600_000
    text = path.read_text(encoding="utf-8")
    sources = block(text, "data")["sources"]
    shown = [source["shown"] for source in sources]
    assert min(shown) > 0
    assert max(shown) - min(shown) <= 4
    assert re.search(rf"{sum(shown)} of \d+ trajectories: an even sample", text)


def test_a_sample_has_the_same_questions_of_every_model(run, tmp_path):
    text = write_page(run, collect(run), tmp_path / "page.html", max_trajectories=45).read_text(encoding="utf-8")
    data = block(text, "data")
    assert len(data["trajectories"]) == 45
    asked = [
        {one["meta"]["question_id"] for one in data["trajectories"] if one["source"] == number}
        for number, source in enumerate(data["sources"])
        if source["mode"] == "greedy"
    ]
    assert all(questions == asked[0] for questions in asked)


def test_training_steps_take_turns_and_first_and_last_are_there(run):
    source = next(one for one in find_sources(run) if one.mode == "training" and one.stage == "v-toolrl")
    assert [candidate.step for candidate in source.candidates[:5]] == [10, 20, 30, 40, 10]
    assert source.total == 48


def test_a_missing_picture_does_not_cost_the_page(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "stages" / "table" / "v-toolrl" / "images")
    (copy / "stages" / "table" / "v-toolrl" / "images").mkdir()
    pictures = block(write_page(copy, collect(copy)).read_text(encoding="utf-8"), "pictures")
    assert None in pictures.values()


def test_a_broken_line_is_named(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    path = copy / "stages" / "table" / "v-toolrl" / "greedy.jsonl"
    path.write_text(path.read_text() + "{\n")
    with pytest.raises(ValueError, match=r"greedy\.jsonl, line 25"):
        write_page(copy, collect(copy))


def test_a_run_without_trajectories_has_a_page(tmp_path):
    (tmp_path / "results.json").write_text('{"models": {}}')
    text = write_page(tmp_path, collect(tmp_path)).read_text(encoding="utf-8")
    assert block(text, "data")["trajectories"] == []


def test_token_texts_are_given_when_somebody_can_decode_them(run, tmp_path):
    path = write_page(run, collect(run), tmp_path / "page.html", decode=lambda token: f"<{token}>")
    assert block(path.read_text(encoding="utf-8"), "data")["pieces"]["400"] == "<400>"


@pytest.mark.parametrize(
    ("data", "boxes", "points"),
    [
        ({"boxes": [[1, 2, 3, 4]], "strings": ["Fox"]}, [[1, 2, 3, 4, "Fox"]], []),
        ({"boxes": [[1, 2, 3, 4]], "labels": ["a", "b"]}, [[1, 2, 3, 4, "a"]], []),
        ({"boxes": [{"box": [1, 2, 3, 4], "label": "x"}]}, [[1, 2, 3, 4, "x"]], []),
        ({"box": [1, 2, 3, 4]}, [[1, 2, 3, 4, ""]], []),
        ({"points": [{"x": 5, "y": 6, "label": "p"}, [7, 8]]}, [], [[5, 6, "p"], [7, 8, ""]]),
        ({"boxes": "no", "points": None}, [], []),
        ({"boxes": [[1, 2, 3], [1, 2, 3, "4"], None, [1, 2, 3, float("nan")]]}, [], []),
        ({}, [], []),
    ],
)
def test_overlays_are_read_from_whatever_a_tool_returned(data, boxes, points):
    assert overlay(data) == {"boxes": boxes, "points": points}


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_axis_ticks_are_few_and_enclose_the_values(low, span):
    ticks = axis_ticks(low, low + span)
    assert 2 <= len(ticks) <= 8
    assert ticks[0] <= low + 1e-6 * max(span, abs(low))
    assert ticks[-1] >= low + span - 1e-6 * max(span, abs(low))


def test_curves_say_their_values_to_those_who_do_not_see_them(run):
    charts = learning_charts(collect(run).curves)
    assert [chart.title for chart in charts] == [
        "Reward",
        "Accuracy while training",
        "Tool use, V-ToolRL",
        "Chains of tools, V-ToolRL",
    ]
    assert "V-ToolRL from 0." in charts[0].svg


def test_nothing_logged_draws_nothing():
    assert learning_charts([]) == []


def test_what_was_lost_or_refused_stands_beside_the_accuracy_in_file_terminal_and_page(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    results = json.loads((copy / "results.json").read_text())
    lost = {"accuracy": None, "ci95": None, "bounds": [0.4, 0.6], "n": 80, "infrastructure": 20}
    kinds = {kind: {"accuracy": None, "n": 8, "bounds": [0.25, 0.5]} for kind in results["models"]["sft"]["by_kind"]}
    results["models"]["sft"] |= {**lost, "by_kind": kinds}
    results["models"]["base"] |= {"refused": 3, "context_full": 1, "refused_sampled": 2}
    (copy / "results.json").write_text(json.dumps(results))
    report = write_report(copy)
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(terminal_table(report))
    page = write_page(copy, report, tmp_path / "report.html").read_text(encoding="utf-8")
    for text in ((copy / "results.md").read_text(), console.export_text(), page):
        assert "incomplete, 40.0 – 60.0 %" in text
        assert "%, 3 refused, 1 context full" in text
        assert "%, 2 refused" in text
        assert "Lost to the infrastructure, so neither right nor wrong: answers of SFT 20." in text
    assert "incomplete, 25.0 – 50.0" in page
    assert "incomplete, 25.0 – 50.0 %" in (copy / "results.md").read_text()
