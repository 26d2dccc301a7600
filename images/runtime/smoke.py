"""Runs in the image (`make images-test`): a tool server starts, takes a picture, and stops."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx
from PIL import Image as Pillow

from thinkimg.image import Image
from thinkimg.wire import JSON, encode


def main() -> None:
    folder = Path(tempfile.mkdtemp())
    config = folder / "config.json"
    config.write_text(json.dumps({"tools": [{"name": "Crop"}, {"name": "DrawHorizontalLineByY"}], "port": 0}))
    command = [sys.executable, "-m", "thinkimg.serving", "--config", str(config)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        ready = json.loads(server.stdout.readline())
        assert ready["event"] == "ready", ready
        picture = Image.from_pixels(Pillow.new("RGB", (64, 48), "white"))
        body = {
            "arguments": {"image": "img_1", "box": [0, 0, 50, 50]},
            "images": {"img_1": {"sha256": picture.sha256, "data": picture.data}},
        }
        answer = httpx.post(f"{ready['url']}/v1/tools/Crop", content=encode(body, JSON), headers={"content-type": JSON})
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["images"]) == 1
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
    assert os.getuid() != 0
    print("ok: Crop answered over HTTP, the server stopped with 0")


main()
