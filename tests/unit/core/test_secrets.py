"""What is told and kept holds no passwords, no addresses of memory, and is for its owner where it may hold secrets."""

import io
import json
import logging
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image as Pillow

from thinkimg import wire
from thinkimg.errors import InfrastructureError, ModelError, UserError, without_passwords
from thinkimg.image import Image, ImageDecodeError
from thinkimg.jobs.runner.processes import run_processes
from thinkimg.jsonfile import read, write
from thinkimg.models.api import ApiModel
from thinkimg.models.reference import Endpoint
from thinkimg.private import append_private, write_private
from thinkimg.results import Done, RunMarker, StageIdentity
from thinkimg.serving.logs import JsonLines

URL = "https://me:hunter2@host.example:8000/v1"


def mode(path: Path) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (URL, "https://***@host.example:8000/v1"),
        (f"'{URL}' is none", "'https://***@host.example:8000/v1' is none"),
        ("dns+http://u:p@x and http://v@y/z", "dns+http://***@x and http://***@y/z"),
        ("http://a:p@ss@host/x@y", "http://***@host/x@y"),
        ("mail me@example.com, or https://host/@me", "mail me@example.com, or https://host/@me"),
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1"),
    ],
)
def test_passwords_of_addresses_are_left_out(text: str, shown: str) -> None:
    assert without_passwords(text) == shown
    for error in (UserError(text), UserError(text, "base_url"), InfrastructureError(text), ModelError(text)):
        assert str(error).endswith(shown)


def test_an_endpoints_password_is_in_none_of_its_errors() -> None:
    with pytest.raises(UserError) as caught:
        ApiModel(base_url=URL.replace("https", "ftp"), model="m")
    assert "hunter2" not in str(caught.value)
    assert "***@host.example" in str(caught.value)
    assert "hunter2" not in str(Endpoint(URL, "m"))


def test_an_endpoints_password_is_in_no_log() -> None:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(JsonLines())
    log = logging.Logger("test")
    log.addHandler(handler)
    log.info("HTTP Request: POST %s", URL)
    try:
        raise ValueError(URL)
    except ValueError:
        log.exception("it failed")
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert len(lines) == 2
    assert "hunter2" not in out.getvalue()
    assert "host.example" in lines[0]["event"]


# ---- files -----------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _generous_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_what_may_hold_values_of_env_is_for_its_owner(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    file.write_text("{}")
    file.chmod(0o644)
    write(file, RunMarker(manifest="env: secret", job="j", seed=0))
    assert mode(file) == 0o600
    assert read(file, RunMarker).manifest == "env: secret"
    write_private(tmp_path / "manifest.yaml", "env: secret")
    assert mode(tmp_path / "manifest.yaml") == 0o600
    assert StageIdentity.private
    assert not Done.private
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.yaml", "run.json"]


def test_a_log_is_for_its_owner_also_if_it_was_not(tmp_path: Path) -> None:
    log = tmp_path / "output.log"
    log.write_text("before\n")
    log.chmod(0o644)
    with append_private(log) as file:
        file.write(b"after\n")
    assert (mode(log), log.read_text()) == (0o600, "before\nafter\n")


def test_a_stages_log_is_for_its_owner(tmp_path: Path) -> None:
    log, shown = tmp_path / "output.log", []
    command = [sys.executable, "-c", "import os, sys; print(os.environ['SECRET']); print('é', file=sys.stderr)"]
    read_end, held = os.pipe()
    try:
        assert run_processes(command, 1, {"SECRET": "canary"}, log, held, shown.append) == 0
    finally:
        os.close(read_end)
        os.close(held)
    assert shown == ["canary\n"]
    assert mode(log) == 0o600
    assert {"canary", "é"} <= set(log.read_text(encoding="utf-8").split())


# ---- addresses of memory ---------------------------------------------------------------------------------------------


def test_no_problem_tells_where_objects_lie() -> None:
    said = "cannot identify image file <_io.BytesIO object at 0x7fae02e07380>"
    document = wire.Problem(415, "model", "refused", said).as_document()
    assert document["detail"] == "cannot identify image file <_io.BytesIO object>"


@pytest.mark.parametrize("data", [b"", b"x", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\xff\xd8\xff", b"RIFF\0\0\0\0WEBP"])
def test_no_broken_picture_tells_where_objects_lie(data: bytes) -> None:
    with pytest.raises(ImageDecodeError) as caught:
        Image.from_bytes(data)
    assert "0x" not in str(caught.value)


def test_a_picture_that_breaks_behind_its_header_tells_only_that() -> None:
    buffer = io.BytesIO()
    Pillow.effect_noise((64, 64), 50).save(buffer, "PNG")
    whole = Image.from_bytes(buffer.getvalue()[:1500])
    with pytest.raises(ImageDecodeError, match="the image data is broken") as caught:
        whole.pixels()
    assert "0x" not in str(caught.value)
