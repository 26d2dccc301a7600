"""Runs in a pod: some callers call DrawHorizontalLineByY for SECONDS, through our client, which balances and retries,
and through plain HTTP at URL, which does neither and connects anew for each call. Prints calls and failures in JSON."""

import asyncio
import json
import os
import random
import time
from collections import Counter

import httpx
from PIL import Image as Pillow

from thinkimg.client.tool_client import ToolClient
from thinkimg.image import Image
from thinkimg.wire import JSON, encode

URL, HEADLESS = os.environ["URL"], os.environ["HEADLESS"]
END = time.monotonic() + float(os.environ["SECONDS"])
CALLERS = int(os.environ.get("CALLERS", "2"))
PICTURE = Image.from_pixels(Pillow.effect_noise((800, 600), 50).convert("RGB"))


def arguments() -> dict[str, object]:
    return {"image": "img_1", "y": random.uniform(1, 99)}


async def by_client(client: ToolClient, calls: Counter[str]) -> None:
    while time.monotonic() < END:
        try:
            await client.call("DrawHorizontalLineByY", arguments(), {"img_1": PICTURE})
            calls["client"] += 1
        except Exception as error:
            calls[f"client failed: {type(error).__name__}: {error}"] += 1


async def by_http(calls: Counter[str]) -> None:
    while time.monotonic() < END:
        body = {"arguments": arguments(), "images": {"img_1": {"sha256": PICTURE.sha256, "data": PICTURE.data}}}
        try:
            async with httpx.AsyncClient(timeout=30) as client:
                answer = await client.post(
                    f"{URL}/v1/tools/DrawHorizontalLineByY", content=encode(body, JSON), headers={"content-type": JSON}
                )
            calls["http" if answer.status_code == 200 else f"http failed: {answer.status_code} {answer.text}"] += 1
        except httpx.HTTPError as error:
            calls[f"http failed: {type(error).__name__}: {error}"] += 1
        await asyncio.sleep(0.02)


async def main() -> None:
    calls: Counter[str] = Counter()
    async with ToolClient([HEADLESS], timeout_seconds=60) as client:
        callers = [by_client(client, calls) for _ in range(CALLERS)] + [by_http(calls) for _ in range(CALLERS)]
        await asyncio.gather(*callers)
    print(json.dumps(calls))


asyncio.run(main())
