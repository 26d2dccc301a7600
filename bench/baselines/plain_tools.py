"""A tool service as one writes it first, and as OpenThinkIMG's works: the baseline of `bench/dispatch.py`.

Written anew from a description of the original's behaviour: JSON with base64 both ways; the work is done inside an
`async` handler, so that it blocks the event loop; the line is drawn through a matplotlib figure of default size, which
shrinks the picture; the reply is a JPEG; the client asks for an address once and keeps it, and opens a connection for
every call.

    python bench/baselines/plain_tools.py --port 8000
"""

import argparse
import base64
import io
from typing import Any

import matplotlib
import requests
import uvicorn
from fastapi import FastAPI, Request
from PIL import Image as Pillow

matplotlib.use("Agg")
from matplotlib import pyplot

CLIENT_SECONDS = 60
app = FastAPI()


@app.post("/worker_generate")
async def worker_generate(request: Request) -> dict[str, Any]:
    params = await request.json()
    picture = Pillow.open(io.BytesIO(base64.b64decode(params["image"]))).convert("RGB")
    y = float(params["param"].removeprefix("y="))
    return {"text": f"drew a line at y={y}", "edited_image": _as_base64_jpeg(_draw_line(picture, y)), "error_code": 0}


@app.post("/worker_get_status")
async def worker_get_status() -> dict[str, Any]:
    return {"model_names": ["DrawHorizontalLineByY"], "speed": 1, "queue_length": 0}


def _draw_line(picture: Pillow.Image, y: float) -> Pillow.Image:
    figure, axes = pyplot.subplots()
    axes.imshow(picture)
    axes.axhline(picture.height * y / 100, color="#e6194b", linestyle="--", linewidth=2)
    axes.axis("off")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight", pad_inches=0)
    pyplot.close(figure)
    buffer.seek(0)
    return Pillow.open(buffer).convert("RGB")


def _as_base64_jpeg(picture: Pillow.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG")
    return base64.b64encode(buffer.getvalue()).decode()


class PlainClient:
    """Args:
    addresses: of the replicas. The first is kept for ever, as the original's client keeps what the controller said.
    """

    def __init__(self, addresses: list[str]) -> None:
        self._address = addresses[0]

    def call(self, image: bytes, y: float) -> bytes:
        """Raises `requests.RequestException`, or `KeyError` when the answer holds no picture."""
        body = {"param": f"y={y}", "image": base64.b64encode(image).decode()}
        answer = requests.post(f"{self._address}/worker_generate", json=body, timeout=CLIENT_SECONDS)
        answer.raise_for_status()
        return base64.b64decode(answer.json()["edited_image"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    uvicorn.run(app, host="127.0.0.1", port=parser.parse_args().port, log_level="warning")
