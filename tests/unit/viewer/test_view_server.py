"""The server of `thinkimg view`: who may ask, what is answered, what is refused; and the command that starts it."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image as Pillow

from tests.support.viewer.executed_run import write_executed_run
from tests.support.viewer.viewed import viewed
from thinkimg.image import Image
from thinkimg.message import ImageBlock, ToolResultBlock
from thinkimg.tools.vision.masks import COLORS, encode_rle
from thinkimg.trajectory import Trajectory, write_trajectories
from thinkimg.viewer.record import mask_pictures

TOKEN = "correct-horse"


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    return write_executed_run(tmp_path_factory.mktemp("executed") / "run", questions=2)


@pytest.fixture(scope="module")
def url(executed, run, tmp_path_factory):
    with viewed(tmp_path_factory.mktemp("index") / "i.sqlite", executed, run) as address:
        yield address


@pytest.fixture(scope="module")
def guarded(executed, tmp_path_factory):
    with viewed(tmp_path_factory.mktemp("index") / "i.sqlite", executed, token=TOKEN) as address:
        yield address


# ---- who may ask ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["", "api/state", "api/trajectories", "static/viewer.js", "api/export", "images/1/x.png"]
)
def test_without_the_token_nothing_is_shown(guarded, path):
    assert httpx.get(guarded + path).status_code == 401
    assert httpx.get(guarded + path, params={"token": TOKEN[:-1]}).status_code == 401
    assert httpx.get(guarded + path, headers={"authorization": "Bearer"}).status_code == 401
    assert httpx.get(guarded + path, headers={"cookie": "thinkimg_view=x"}).status_code == 401


def test_the_token_of_the_address_becomes_a_cookie_and_leaves_the_address(guarded):
    with httpx.Client(base_url=guarded) as client:
        answer = client.get("/", params={"token": TOKEN, "x": "1"})
        assert answer.status_code == 303
        assert "token" not in answer.headers["location"]
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert client.get("/api/state").status_code == 200
    assert httpx.get(guarded + "api/state", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200


@pytest.mark.parametrize("token", ["", "é", "\ud800", TOKEN * 1000], ids=["empty", "accent", "surrogate", "long"])
def test_no_token_breaks_the_server(guarded, token):
    answer = httpx.get(guarded, params={"token": token.encode("utf-8", "surrogatepass")})
    assert answer.status_code == 401


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8750", "127.0.0.1.evil.example", "0.0.0.0"])
def test_a_name_of_another_site_that_leads_here_is_not_answered(url, host):
    assert httpx.get(url + "api/state", headers={"host": host}).status_code == 421


@pytest.mark.parametrize("host", ["localhost:1234", "127.0.0.1:9999", "[::1]:8750"])
def test_a_forwarded_port_is(url, host):
    assert httpx.get(url + "api/state", headers={"host": host}).status_code == 200


def test_it_only_reads(url):
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert httpx.request(method, url + "api/state").status_code == 405


def test_nothing_runs_in_the_page_but_its_own_script(url):
    answer = httpx.get(url)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert set(re.findall(r'(?:src|href)="([^"]*)"', answer.text)) == {
        "data:,",
        "static/viewer.css",
        "static/viewer.js",
    }
    for name in ("static/viewer.css", "static/viewer.js"):
        asset = httpx.get(url + name)
        assert asset.status_code == 200
        assert "http://" not in asset.text.replace("http://www.w3.org/", "")
        assert "https://" not in asset.text


# ---- what is answered -----------------------------------------------------------------------------------------------


def test_a_page_of_the_list(url):
    answer = httpx.get(url + "api/trajectories", params={"model": "sft", "limit": 5, "offset": 2}).json()
    assert len(answer["rows"]) == 5
    assert {row["model"] for row in answer["rows"]} == {"sft"}
    found = httpx.get(url + "api/trajectories", params={"model": "sft", "find": answer["rows"][3]["key"], "limit": 1})
    assert found.json()["found"] == 5


def test_no_answer_is_endless(url):
    rows = httpx.get(url + "api/trajectories", params={"limit": 10**9}).json()["rows"]
    assert len(rows) == min(500, httpx.get(url + "api/state").json()["facets"]["total"])


def test_a_trajectory_with_its_pictures_masks_and_pieces(url, executed):
    key = next(
        row["key"]
        for row in httpx.get(url + "api/trajectories", params={"tool": "SegmentRegionAroundPoint"}).json()["rows"]
    )
    shown = httpx.get(f"{url}api/trajectories/{key}").json()
    record = shown["record"]
    for image in record["images"].values():
        picture = httpx.get(url + image["src"])
        assert picture.headers["content-type"] == "image/png"
        assert Image.from_bytes(picture.content).sha256 == image["sha"]
        assert (executed / "stages/table/v-toolrl/images" / Path(image["src"]).name).read_bytes() == picture.content
    results = [block for turn in record["turns"] for block in turn["blocks"] if block["type"] == "tool_result"]
    (segmented,) = [block for block in results if block["name"] == "SegmentRegionAroundPoint"]
    assert len(segmented["overlay"]["masks"]) == 1
    spoken = next(turn for turn in record["turns"] if turn["role"] == "assistant")
    text = "".join(record["pieces"][str(token)] for token in spoken["tokens"])
    assert text == spoken["blocks"][0]["text"]
    assert len(spoken["mask"]) == len(spoken["tokens"]) == len(spoken["logprobs"])


@pytest.mark.parametrize(
    "path",
    [
        "api/trajectories/none", "images/1/../../../etc/passwd", "images/1/%2e%2e%2fbase%2ftokenizer.json",
        "images/999999/" + "0" * 64 + ".png", "images/1/" + "0" * 64 + ".svg", "static/../command.py",
        "static/%2e%2e%2fcommand.py", "api/none",
    ],
)  # fmt: skip
def test_what_is_not_there_is_404(url, path):
    assert httpx.get(url + path).status_code == 404


@pytest.mark.parametrize("query", ["step=soon", "min=x", "sort=luck", "offset=a", "q=" + "x" * 2000])
def test_a_wrong_question_is_400_and_says_which_field(url, query):
    answer = httpx.get(f"{url}api/trajectories?{query}")
    assert answer.status_code == 400
    assert query.partition("=")[0] in answer.json()["error"]


def test_a_picture_that_browsers_do_not_know_is_made_one_they_do(tmp_path):
    Pillow.new("RGB", (5, 4), "red").save(tmp_path / "a.tiff")
    one = Trajectory(question="?")
    one.add("user", ImageBlock(handle=one.add_image(Image.from_file(tmp_path / "a.tiff"))))
    write_trajectories([one], tmp_path / "run" / "a.jsonl")
    with viewed(tmp_path / "i.sqlite", tmp_path / "run") as url:
        src = httpx.get(f"{url}api/trajectories/{one.id}").json()["record"]["images"]["img_1"]["src"]
        picture = httpx.get(url + src)
    assert picture.headers["content-type"] == "image/png"
    assert Image.from_bytes(picture.content).pixels().getpixel((0, 0)) == (255, 0, 0)


def test_a_record_of_another_version_is_said_not_shown(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        json.dumps({"id": "x", "question": "?", "turns": [], "status": "answered", "images": {}, "new_field": 1}) + "\n"
    )
    with viewed(tmp_path / "i.sqlite", tmp_path / "a.jsonl") as url:
        answer = httpx.get(f"{url}api/trajectories/x")
    assert answer.status_code == 400
    assert "new_field" in answer.json()["error"]


def test_a_mask_is_its_own_pixels():
    mask = np.zeros((40, 60), bool)
    mask[5:17, 9:31] = True
    (uri,) = mask_pictures({"mask": encode_rle(mask)})
    import base64
    import io

    picture = np.asarray(Pillow.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGBA"))
    assert picture.shape == (40, 60, 4)
    assert ((picture[..., 3] > 0) == mask).all()
    assert (picture[mask][:, :3] == COLORS[0]).all()
    two = mask_pictures({"masks": [encode_rle(mask), encode_rle(~mask)]})
    assert len(two) == 2


@pytest.mark.parametrize(
    "data",
    [
        {"mask": "none"}, {"masks": 3}, {"mask": {"size": [10**6, 10**6], "counts": [10**12]}},
        {"mask": {"size": [2, 2], "counts": [1]}}, {"mask": {"size": [2, -2], "counts": []}},
        {"mask": {"size": [2, 2], "counts": "abc"}},
    ],
)  # fmt: skip
def test_what_is_no_mask_is_not_drawn(data):
    assert mask_pictures(data) == []


# ---- export and command ---------------------------------------------------------------------------------------------


def test_too_much_for_one_file_is_refused(tmp_path, monkeypatch, executed):
    monkeypatch.setattr("thinkimg.viewer.export.MOST_TRAJECTORIES", 3)
    with viewed(tmp_path / "i.sqlite", executed) as url:
        answer = httpx.get(url + "api/export")
        assert answer.status_code == 400
        assert "6 trajectories match; one file holds at most 3: narrow it" in answer.json()["error"]
        assert httpx.get(url + "api/export", params={"model": "sft"}).status_code == 200
        assert httpx.get(url + "api/export", params={"model": "nobody"}).status_code == 400


def test_the_command_writes_a_selection(executed, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    out = tmp_path / "out" / "right.html"
    ran = subprocess.run(
        [sys.executable, "-m", "thinkimg.cli", "view", executed, "--out", out, "--select", "http://x/#/t?outcome=right&t=a"],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    data = json.loads(re.search(r'id="data">(.*?)</script>', out.read_text(), re.S)[1])
    assert data["rows"]
    assert {row["correct"] for row in data["rows"]} == {True}
    assert set(data["records"]) == {row["key"] for row in data["rows"]}
    shown = {image["sha"] for record in data["records"].values() for image in record["images"].values()}
    assert set(data["pictures"]) == shown
    assert all(uri.startswith("data:image/") for uri in data["pictures"].values())


def start(tmp_path: Path, monkeypatch, *arguments: object) -> tuple[subprocess.Popen[str], list[str]]:
    """The command under way, and the three lines that it printed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "thinkimg.cli", "view", *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, [process.stdout.readline().strip() for _ in range(3)]


def test_the_command_serves_this_machine_and_says_how_to_come_from_another(executed, tmp_path, monkeypatch):
    process, lines = start(tmp_path, monkeypatch, executed, "--port", "0")
    try:
        port = int(re.search(r"http://127\.0\.0\.1:(\d+)/$", lines[0])[1])
        assert re.search(rf"ssh -L {port}:127\.0\.0\.1:{port} \S+@\S+$", lines[1])
        assert httpx.get(f"http://127.0.0.1:{port}/api/state").status_code == 200
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


def test_beyond_this_machine_the_printed_address_holds_a_token(executed, tmp_path, monkeypatch):
    process, lines = start(tmp_path, monkeypatch, executed, "--host", "0.0.0.0", "--port", "0")
    try:
        port, token = re.search(r"http://[^/]+:(\d+)/\?token=([\w-]{30,})$", lines[0]).groups()
        assert "token" in lines[2]
        url = f"http://127.0.0.1:{port}/"
        assert httpx.get(url + "api/state").status_code == 401
        assert httpx.get(url, params={"token": token}, follow_redirects=False).status_code == 303
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["/nowhere"], "no such run folder"),
        (["EMPTY"], "no trajectories there"),
        (["RUN", "--out", "OUT", "--select", "step=x"], "step: "),
        (["RUN", "--out", "OUT", "--select", "model=nobody"], "nothing matches"),
        (["RUN", "--port", "1"], "--port"),
    ],
)
def test_a_wrong_command_is_refused_with_a_reason(executed, tmp_path, monkeypatch, arguments, words):
    (tmp_path / "empty").mkdir()
    places = {"RUN": executed, "EMPTY": tmp_path / "empty", "OUT": tmp_path / "o.html"}
    if "--port" in arguments and os.geteuid() == 0:
        import socket

        taken = socket.create_server(("127.0.0.1", 0))
        arguments = [*arguments[:-1], str(taken.getsockname()[1])]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    ran = subprocess.run(
        [sys.executable, "-m", "thinkimg.cli", "view", *[str(places.get(one, one)) for one in arguments]],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert ran.returncode == 2, ran.stdout
    assert words in ran.stderr


def test_what_a_tool_read_cannot_leave_its_place_in_an_export(tmp_path):
    hostile = "</script><script>window.hacked = 1</script><!--"
    one = Trajectory(question=hostile, answer=hostile)
    one.add("tool", ToolResultBlock(call_id="c", name="OCR", text=hostile))
    write_trajectories([one], tmp_path / "a.jsonl")
    with viewed(tmp_path / "i.sqlite", tmp_path / "a.jsonl") as url:
        page = httpx.get(url + "api/export").text
    assert hostile not in page
    assert page.count("<script") == page.count("</script>") == 2
