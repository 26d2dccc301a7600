"""`thinkimg weights`: downloads that meet every fault, digests, and a folder that is whole without a network."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.tools.fake_hub import COMMIT, FakeHub, fake_hub, sha256
from thinkimg.cli.weights import list_weights
from thinkimg.errors import InfrastructureError, UserError
from thinkimg.tools.weights import catalogue, download, store
from thinkimg.tools.weights.catalogue import CATALOGUE, Digest, Weights
from thinkimg.tools.weights.fetch import Fetched, fetch, verify
from thinkimg.tools.weights.locate import locate
from thinkimg.tools.weights.repository import Repository, read_repository

LARGE = bytes(range(256)) * 4000
SMALL = b'{"model_type": "x"}'
ALL = Repository("org/name")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    monkeypatch.setattr(download, "_PAUSE_SECONDS", 0.0)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with fake_hub() as hub:
        hub.files = {"model.safetensors": LARGE, "config.json": SMALL, "README.md": b"no", "code.py": b"pass"}
        hub.large = {"model.safetensors"}
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("THINKIMG_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "weights"


def left(place: Path) -> list[str]:
    """What of a repository's folder is a file that somebody would read."""
    return sorted(str(path.relative_to(place)) for path in place.rglob("*") if path.is_file() and path.name != ".lock")


def ranges(hub: FakeHub) -> list[str]:
    return [asked for path, asked, _ in hub.asked if path == "model.safetensors"]


# ---- what is fetched -------------------------------------------------------------------------------------------------


def test_what_is_needed_comes_with_a_record_and_is_found_without_the_hub(hub: FakeHub, root: Path) -> None:
    assert store.find(ALL) is None
    fetched = fetch(ALL, root)
    assert fetched == Fetched(
        root / "org/name@main", COMMIT, ("config.json", "model.safetensors"), (), recorded=("config.json",)
    )
    assert left(fetched.folder) == ["config.json", "model.safetensors", store.RECORD]
    assert (fetched.folder / "model.safetensors").read_bytes() == LARGE
    record = store.record_of(fetched.folder)
    assert record is not None
    assert (record.source, record.commit, record.whole) == ("org/name", COMMIT, True)
    assert record.files["model.safetensors"].model_dump() == {
        "sha256": sha256(LARGE), "size": len(LARGE), "said_by": "the hub's listing"
    }  # fmt: skip
    assert record.files["config.json"].said_by == "recorded when it was fetched first"
    hub.files.clear()
    assert locate("hf://org/name") == locate("org/name") == fetched.folder


def test_what_is_here_is_not_fetched_again_and_what_was_damaged_is(hub: FakeHub, root: Path) -> None:
    place = fetch(ALL, root).folder
    hub.asked.clear()
    again = fetch(ALL, root)
    assert (again.brought, again.kept, hub.asked) == ((), ("config.json", "model.safetensors"), [])
    (place / "model.safetensors").write_bytes(LARGE[:-1] + b"!")
    (place / "config.json").unlink()
    third = fetch(ALL, root)
    assert (third.brought, third.recorded) == (("config.json", "model.safetensors"), ())
    assert (place / "model.safetensors").read_bytes() == LARGE


def test_a_file_that_was_recorded_must_stay_the_same(hub: FakeHub, root: Path) -> None:
    place = fetch(ALL, root).folder
    (place / "config.json").unlink()
    hub.files["config.json"] = SMALL.replace(b"x", b"y")
    with pytest.raises(UserError, match="as recorded when it was fetched first says"):
        fetch(ALL, root)
    assert not (place / "config.json").exists()
    hub.commit = COMMIT[::-1]
    assert fetch(ALL, root).brought == ("config.json",), "another commit may have another file"


def test_one_file_of_a_repository_is_not_the_repository(hub: FakeHub, root: Path) -> None:
    fetched = fetch(Repository("org/name", "model.safetensors"), root)
    assert fetched.brought == ("model.safetensors",)
    assert locate("org/name/model.safetensors") == fetched.folder / "model.safetensors"
    with pytest.raises(UserError, match="org/name is not on this machine"):
        locate("org/name")
    assert fetch(ALL, root).kept == ("model.safetensors",)
    assert locate("org/name") == fetched.folder


def test_pickled_weights_come_only_without_others_and_code_only_when_asked_for(hub: FakeHub, root: Path) -> None:
    hub.files["pytorch_model.bin"] = b"pickled"
    assert "pytorch_model.bin" not in fetch(ALL, root).brought
    assert store.find(ALL) is not None
    assert store.find(ALL, code=True) is None
    assert fetch(ALL, root, code=True).brought == ("code.py",)
    assert store.find(ALL, code=True) == store.find(ALL)
    del hub.files["model.safetensors"]
    assert "pytorch_model.bin" in fetch(Repository("org/name"), root / "other").brought
    del hub.files["pytorch_model.bin"]
    with pytest.raises(UserError, match="holds no weights"):
        fetch(ALL, root / "third")


@pytest.mark.parametrize(
    ("repository", "said"),
    [
        (Repository("org/other"), "is no repository of the hub that may be read"),
        (Repository("org/name", revision="v9"), "has no revision 'v9'"),
        (Repository("org/name", "absent.pth"), "has no file absent.pth"),
    ],
)
def test_what_the_hub_does_not_have_is_named(hub: FakeHub, root: Path, repository: Repository, said: str) -> None:
    with pytest.raises(UserError, match=said):
        fetch(repository, root)


def test_a_path_that_leaves_the_folder_is_refused(hub: FakeHub, root: Path) -> None:
    hub.files["../evil.json"] = b"{}"
    with pytest.raises(InfrastructureError, match="does not answer as the hub does"):
        fetch(ALL, root)
    assert not (root / "org").exists()


def test_a_hub_that_is_not_there_is_no_fault_of_the_weights(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(InfrastructureError, match=r"http://127\.0\.0\.1:9 does not answer"):
        fetch(ALL, root)


# ---- faults on the way -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("faults", "asked"),
    [
        (["cut"], ["", "bytes=512000-"]),
        (["cut", "cut"], ["", "bytes=512000-", "bytes=768000-"]),
        (["cut at once"], ["", ""]),
        (["cut", "no range"], ["", "bytes=512000-"]),
        (["cut", "other range"], ["", "bytes=512000-", "bytes=512000-"]),
        (["cut", "416"], ["", "bytes=512000-", ""]),
        (["no length, cut"], ["", "bytes=512000-"]),
        (["no length"], [""]),
        (["500", "429", "cut", "503"], ["", "", "", "bytes=512000-", "bytes=512000-"]),
        (["redirect"], ["", ""]),
        (["cut", "redirect"], ["", "bytes=512000-", "bytes=512000-"]),
        (["cut", "else"], ["", "bytes=512000-", ""]),
    ],
    ids=str,
)
def test_a_download_goes_on_where_it_stopped_and_ends_whole(
    hub: FakeHub, root: Path, faults: list[str], asked: list[str]
) -> None:
    hub.faults["model.safetensors"] = faults
    if faults[-1] == "else":  # wrong bytes behind the cut: only the digest tells, and the next command begins anew
        with pytest.raises(UserError, match="it was thrown away"):
            fetch(ALL, root)
    place = fetch(ALL, root).folder
    assert (place / "model.safetensors").read_bytes() == LARGE
    assert ranges(hub) == asked
    assert left(place) == ["config.json", "model.safetensors", store.RECORD]


def test_an_interrupted_command_goes_on_in_the_next(hub: FakeHub, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.faults["model.safetensors"] = ["cut", "500", "500", "500", "500", "500"]
    with pytest.raises(InfrastructureError, match="the server answers 500, 5 times in a row"):
        fetch(ALL, root)
    place = root / "org/name@main"
    assert not (place / "model.safetensors").exists()
    assert store.find(ALL) is None, "half of it is not it"

    def interrupt(done: int, whole: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(ALL, root, progress=lambda path: interrupt)
    hub.asked.clear()
    assert fetch(ALL, root).brought == ("model.safetensors",)
    (asked,) = ranges(hub)
    assert int(asked.removeprefix("bytes=").rstrip("-")) > 512000, "also what came before the interruption is kept"
    assert (place / "model.safetensors").read_bytes() == LARGE


@pytest.mark.parametrize(
    ("fault", "error", "said"),
    [
        ("shorter", UserError, "it has 1,023,999 bytes, not 1,024,000"),
        ("longer", UserError, "it has 1,024,001 bytes, not 1,024,000"),
        ("else", UserError, f"not {sha256(LARGE)} as the hub's listing says; it was thrown away"),
        ("403", UserError, "the server answers 403; private and gated weights need HF_TOKEN"),
        ("404", UserError, "the server answers 404"),
        ("redirect without end", InfrastructureError, "redirected without an end"),
    ],
)
def test_what_is_not_what_was_wanted_is_not_kept(
    hub: FakeHub, root: Path, fault: str, error: type[Exception], said: str
) -> None:
    hub.faults["model.safetensors"] = [fault]
    with pytest.raises(error, match=said):
        fetch(ALL, root)
    assert left(root / "org/name@main") == ["config.json", store.RECORD]
    assert store.find(ALL) is None


def test_a_file_that_is_longer_than_it_should_be_is_begun_anew(hub: FakeHub, root: Path) -> None:
    wanted = download.Wanted(f"{hub.url}/org/name/resolve/{COMMIT}/model.safetensors", len(LARGE), sha256(LARGE))
    target = root / "model.safetensors"
    root.mkdir()
    partial = root / f"model.safetensors.{hashlib.sha256(wanted.url.encode()).hexdigest()[:8]}.partial"
    for before in (LARGE + b"more", LARGE[:-9] + b"different", b"of another file"):
        partial.write_bytes(before)
        with httpx.Client() as client:
            assert download.download(client, wanted, target) == Digest(sha256(LARGE), len(LARGE))
        assert target.read_bytes() == LARGE


def test_the_key_goes_to_the_hub_and_not_where_it_redirects(
    hub: FakeHub, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    with fake_hub() as elsewhere:
        elsewhere.files = hub.files
        hub.faults["model.safetensors"] = ["redirect"]
        hub_url, hub.url = hub.url, elsewhere.url
        monkeypatch.setenv("HF_ENDPOINT", hub_url)
        fetch(ALL, root)
    assert [key for *_, key in hub.asked] == ["Bearer secret", "Bearer secret"]
    assert elsewhere.asked == [("model.safetensors", "", "")]


# ---- digests that the catalogue states -------------------------------------------------------------------------------


def stating(digest: Digest) -> tuple[Weights, ...]:
    files = {"model.safetensors": digest}
    return (Weights("org/name", "SAM", "onnx", files=files, digests_from="https://example.org/digests"),)


def test_a_stated_digest_is_stronger_than_the_hubs(hub: FakeHub, root: Path) -> None:
    right = stating(Digest(sha256(LARGE), len(LARGE)))
    place = fetch(ALL, root, catalogue=right).folder
    record = store.record_of(place)
    assert record is not None
    assert record.files["model.safetensors"].said_by == "https://example.org/digests"
    wrong = stating(Digest("0" * 64, len(LARGE)))
    hub.asked.clear()
    with pytest.raises(UserError, match=r"not 0{64} as https://example.org/digests says; nothing was fetched"):
        fetch(ALL, root / "other", catalogue=wrong)
    assert "model.safetensors" not in [path for path, *_ in hub.asked]
    hub.large.clear()  # a hub that states none: what comes is compared
    with pytest.raises(UserError, match=r"as https://example.org/digests says; it was thrown away"):
        fetch(ALL, root / "third", catalogue=wrong)


def test_the_catalogue_states_licences_and_digests_with_their_source_only() -> None:
    for entry in CATALOGUE:
        repository = read_repository(entry.source)
        assert str(repository) == entry.source
        for stated, source in ((entry.licence, entry.licence_from), (entry.files, entry.digests_from)):
            assert bool(stated) == bool(source)
            # A commit, so that what is read there stays what was copied; of these weights or of their authors' code.
            assert not source or re.search(r"/[0-9a-f]{40}(/|$)", source)
            authors = f"https://huggingface.co/{repository.name}/", "https://github.com/facebookresearch/sam2/"
            assert not source or source.startswith(authors)
        for path, digest in entry.files.items():
            assert re.fullmatch(r"[0-9a-f]{64}", digest.sha256)
            assert digest.size > 0
            assert path == repository.file or not repository.file


def test_a_licence_that_is_not_known_here_names_the_page_to_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(catalogue, "CATALOGUE", (Weights("org/name/folder/file.pth", "SAM", "onnx"), *CATALOGUE[:1]))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    list_weights(tmp_path, as_json=True)
    unknown, known = json.loads(capsys.readouterr().out)
    assert unknown["licence"] == "not known here: read https://huggingface.co/org/name"
    assert (unknown["address"], unknown["licence_from"]) == ("https://huggingface.co/org/name", "")
    assert (known["licence"], known["licence_from"]) == ("Apache-2.0", CATALOGUE[0].licence_from)


# ---- on this machine -------------------------------------------------------------------------------------------------


def test_the_folder_can_be_carried_to_a_machine_without_a_network(
    hub: FakeHub, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch(ALL, root)
    shutil.copytree(root, tmp_path / "carried")
    monkeypatch.setenv("THINKIMG_WEIGHTS", str(tmp_path / "carried"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    place = locate("org/name")
    assert place == tmp_path / "carried" / "org" / "name@main"
    ((_, record),) = store.records(tmp_path / "carried")
    assert verify(place, record) == {"config.json": "", "model.safetensors": ""}
    (place / "model.safetensors").write_bytes(LARGE[:-1] + b"!")
    (place / "config.json").write_bytes(SMALL + b" ")
    faults = verify(place, record)
    assert faults["model.safetensors"].startswith("has the SHA-256 ")
    assert faults["config.json"] == "has 20 bytes, not 19"
    (place / "config.json").unlink()
    assert verify(place, record)["config.json"] == "missing"


def test_where_the_environment_allows_it_what_loads_fetches(
    hub: FakeHub, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError) as caught:
        locate("org/name", "main", trust_remote_code=True, field="options.detector.weights")
    assert str(caught.value) == (
        "options.detector.weights: org/name is not on this machine; "
        "bring it with: thinkimg weights fetch org/name --code"
    )
    assert hub.listed == 0
    monkeypatch.setenv("THINKIMG_FETCH_WEIGHTS", "1")
    assert locate("org/name") == root / "org/name@main"
    assert locate("org/name/config.json") == root / "org/name@main" / "config.json"
    assert hub.listed == 1


@pytest.mark.parametrize("wrong", ["..", "a/..", "../b", "a/b/../../c", "a//b", "a/.hidden", "hf://a", "a b/c"])
def test_names_that_are_no_repositories_are_refused(wrong: str, root: Path) -> None:
    with pytest.raises(UserError, match="neither a file, nor a folder, nor a hub repository"):
        read_repository(wrong)
    with pytest.raises(UserError, match="no commit, tag or branch"):
        read_repository("a/b", revision=f"../{wrong}")


PROGRAM = """
import socket, sys
from thinkimg.errors import UserError
from thinkimg.tools.registry import TOOLS, load_tool

asked = []
def refuse(*what, **_):
    asked.append(what)
    raise OSError("no network here")
socket.socket.connect = socket.getaddrinfo = refuse
for tool, backend in (line.split() for line in sys.argv[1:]):
    try:
        load_tool(tool, backend)
    except UserError as error:
        print(tool, backend, error)
assert not asked, asked
assert not {"torch", "transformers"} & sys.modules.keys()
"""


def test_a_tool_without_weights_says_how_to_bring_them_without_a_network_and_without_torch(tmp_path: Path) -> None:
    wanted = {
        "GroundingDINO transformers": "IDEA-Research/grounding-dino-tiny",
        "SAM segment-anything": "ybelkada/segment-anything/checkpoints/sam_vit_b_01ec64.pth",
        "SAM transformers": "facebook/sam2.1-hiera-small",
        "SegmentRegionAroundPoint transformers": "facebook/sam2.1-hiera-small",
        "GroundedSAM transformers": "IDEA-Research/grounding-dino-tiny",
        "EstimateDepth transformers": "depth-anything/Depth-Anything-V2-Small-hf",
    }
    environment = {**os.environ, "THINKIMG_WEIGHTS": str(tmp_path), "HF_HOME": str(tmp_path / "hub")}
    environment.pop("HF_HUB_CACHE", None)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *wanted], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"{tool} options.weights: {source} is not on this machine; bring it with: thinkimg weights fetch {source}"
        for tool, source in wanted.items()
    ]


# ---- the command -----------------------------------------------------------------------------------------------------


def thinkimg(folder: Path, *words: str, code: int = 0, **environment: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "thinkimg.cli", "weights", *words],
        cwd=folder, env={**os.environ, "HF_HOME": str(folder / "hub"), "COLUMNS": "200", **environment},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done.stdout, done.stderr


@pytest.mark.slow
def test_the_commands_fetch_list_and_verify(hub: FakeHub, tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    where = {"HF_ENDPOINT": hub.url, "THINKIMG_WEIGHTS": str(folder)}
    said, _ = thinkimg(tmp_path, "fetch", "org/name", **where)
    assert f"org/name at {COMMIT[:12]}: 2 files fetched, 0 were here; in {folder / 'org/name@main'}" in said
    assert "nobody states a SHA-256 of config.json: recorded what came" in said
    listed = {row["source"]: row for row in json.loads(thinkimg(tmp_path, "list", "--json", **where)[0])}
    assert listed["facebook/sam2.1-hiera-small"]["here"] == ""
    assert listed["org/name@main"]["size"] == len(LARGE) + len(SMALL)
    assert listed["org/name@main"]["licence"] == f"not known here: read {hub.url}/org/name"
    assert "org/name@main" in thinkimg(tmp_path, "list", **where)[0]
    assert "2 of 2 files are whole" in thinkimg(tmp_path, "verify", **where)[0]
    (folder / "org/name@main/config.json").write_bytes(b"{}")
    printed, error = thinkimg(tmp_path, "verify", "--json", code=2, **where)
    assert json.loads(printed)["org/name@main"]["config.json"] == "has 2 bytes, not 19"
    assert "org/name@main/config.json has 2 bytes, not 19" in error
    hub.files["config.json"] = SMALL
    (again,) = json.loads(thinkimg(tmp_path, "fetch", "org/name", "--json", **where)[0])
    assert (again["brought"], again["kept"]) == (["config.json"], ["model.safetensors"])
