"""A run that somebody else made shows what it holds itself, and nothing of this machine."""

import base64
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image as Pillow

from tests.support.viewer.viewed import viewed
from thinkimg.errors import UserError
from thinkimg.image import Image
from thinkimg.message import ImageBlock, TextBlock
from thinkimg.trajectory import Trajectory, read_trajectories, write_trajectories
from thinkimg.viewer.discovery import RunFolder, own_files
from thinkimg.viewer.export import export_page
from thinkimg.viewer.index import Index
from thinkimg.viewer.queries import Queries
from thinkimg.viewer.sample import find_sources
from thinkimg.viewer.selection import Selection
from thinkimg.viewer.server import Viewer

SECRET = Image.from_pixels(Pillow.new("RGB", (33, 22), (9, 8, 7)))
SHOWN = Image.from_pixels(Pillow.new("RGB", (12, 11), (1, 2, 3)))


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """What the machine's user has, and the run does not."""
    folder = tmp_path / "private"
    folder.mkdir()
    (folder / "holiday.png").write_bytes(SECRET.data)
    write_trajectories([record("my private question")], folder / "private.jsonl")
    return folder


def record(question: str, image: Image = SHOWN) -> Trajectory:
    trajectory = Trajectory(question=question)
    trajectory.add("user", ImageBlock(handle=trajectory.add_image(image)), TextBlock(text=question))
    return trajectory


def run_with(tmp_path: Path, change: dict[str, Any] | None = None) -> Path:
    """A run with one trajectory, whose picture says what `change` says."""
    run = tmp_path / "run"
    file = run / "stages" / "sft" / "trajectories" / "step-1.jsonl"
    write_trajectories([record("theirs")], file)
    document = json.loads(file.read_text())
    document["images"]["img_1"] |= change or {}
    file.write_text(json.dumps(document) + "\n")
    return run


def seen(run: Path, tmp_path: Path) -> str:
    """All that is shown of a run: by the viewer's server, its export and the report's pictures."""
    text = []
    with viewed(tmp_path / "index.sqlite", run) as url:
        for row in httpx.get(f"{url}api/trajectories").json()["rows"]:
            answer = httpx.get(f"{url}api/trajectories/{row['key']}")
            assert answer.status_code in (200, 400)
            text.append(answer.text)
            for image in answer.json().get("record", {}).get("images", {}).values():
                if image["src"]:
                    text.append(base64.b64encode(httpx.get(url + image["src"]).content).decode())
        exported = httpx.get(f"{url}api/export")
        assert exported.status_code in (200, 400)
        text.append(exported.text)
    for source in find_sources(run):
        for candidate in source.candidates:
            try:
                images = candidate.load().images.values()
            except UserError as error:
                text.append(str(error))
                continue
            text += [
                base64.b64encode(path.read_bytes()).decode() for one in images if (path := candidate.picture_path(one))
            ]
    return "\n".join(text)


HOSTILE: list[dict[str, Any]] = [
    {"sha256": "../../../../../private/holiday"},
    {"sha256": "/etc/hostname"},
    {"sha256": "A" * 64},
    {"sha256": "a" * 63},
    {"sha256": "a" * 64 + "\n"},
    {"sha256": 7},
    {"sha256": None},
    {"media_type": "image/../../png"},
    {"media_type": "x/png\0"},
    {"width": 10**30 * -1},
    {"height": "7"},
]


@pytest.mark.parametrize("change", HOSTILE, ids=[str(change)[:50] for change in HOSTILE])
def test_a_hash_that_is_none_is_refused_and_leads_nowhere(
    tmp_path: Path, private: Path, change: dict[str, Any]
) -> None:
    run = run_with(tmp_path, change)
    (file,) = run.rglob("*.jsonl")
    shown = seen(run, tmp_path)
    assert base64.b64encode(SECRET.data).decode() not in shown
    assert "a picture's" in shown
    with pytest.raises(ValueError, match="a picture's"):
        list(read_trajectories(file))
    index = Index([RunFolder("run", run)], tmp_path / "again.sqlite")
    index.refresh()
    with pytest.raises(UserError, match="this version cannot show it"):
        export_page(Queries(index), Selection(), Viewer(index).trajectory)
    index.close()


def test_an_honest_run_is_shown(tmp_path: Path, private: Path) -> None:
    shown = seen(run_with(tmp_path), tmp_path)
    assert shown.count("theirs") >= 2
    assert base64.b64encode(SHOWN.data).decode() in shown


def test_links_to_pictures_are_not_followed(tmp_path: Path, private: Path) -> None:
    run = run_with(tmp_path)
    (picture,) = run.rglob("*.png")
    picture.unlink()
    picture.symlink_to(private / "holiday.png")
    shown = seen(run, tmp_path)
    assert "theirs" in shown
    assert base64.b64encode(SECRET.data).decode() not in shown


def test_a_link_in_place_of_the_folder_of_pictures_is_not_followed(tmp_path: Path, private: Path) -> None:
    run = run_with(tmp_path)
    folder = next(run.rglob("images"))
    folder.rename(private / "theirs")
    (picture,) = (private / "theirs").iterdir()
    picture.write_bytes(SECRET.data)
    folder.symlink_to(private / "theirs", target_is_directory=True)
    assert base64.b64encode(SECRET.data).decode() not in seen(run, tmp_path)


def test_links_to_trajectories_are_not_followed(tmp_path: Path, private: Path) -> None:
    run = run_with(tmp_path)
    (run / "stages" / "sft" / "trajectories" / "step-2.jsonl").symlink_to(private / "private.jsonl")
    (run / "stages" / "more").mkdir()
    (run / "stages" / "more" / "trajectories").symlink_to(private, target_is_directory=True)
    (run / "stages" / "more" / "log.jsonl").symlink_to(private / "private.jsonl")
    shown = seen(run, tmp_path)
    assert "theirs" in shown
    assert "my private question" not in shown
    assert RunFolder("run", run).logs() == []


def test_a_run_that_its_user_reaches_through_a_link_is_shown(tmp_path: Path) -> None:
    run = run_with(tmp_path)
    link = tmp_path / "latest"
    link.symlink_to(run, target_is_directory=True)
    assert len(own_files(link, "**/*.jsonl")) == 1
    assert sum(source.total for source in find_sources(link)) == 1


NUMBER = "9" * 20


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"images/{NUMBER}/{'a' * 64}.png", 404),
        (f"images/{'9' * 5000}/{'a' * 64}.png", 404),
        (f"images/-1/{'a' * 64}.png", 404),
        (f"images/x/{'a' * 64}.png", 404),
        (f"api/trajectories?step={NUMBER}", 404),
        (f"api/trajectories?step={'9' * 5000}", 400),
        (f"api/trajectories?offset={NUMBER}", 200),
        (f"api/trajectories?offset={'9' * 5000}", 400),
        (f"api/pairs?offset={NUMBER}", 404),
        ("api/trajectories?min=1e999", 200),
    ],
)
def test_absurd_numbers_in_addresses_are_no_error_of_ours(tmp_path: Path, path: str, status: int) -> None:
    with viewed(tmp_path / "index.sqlite", run_with(tmp_path)) as url:
        assert httpx.get(url + path).status_code == status
