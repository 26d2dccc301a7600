"""Calls of a drawing tool: our client, the same through the gateway, and a plain service, on one machine in one run.

    python -P bench/dispatch.py [--concurrency 1,8,32,128] [--seconds 6] [--repeats 3]

The tool draws a horizontal line on a 1200x800 chart. (a) is `ToolClient` with tool servers, lossless replies at source
size; (b) the same client and servers with a gateway between them; (c) `bench/baselines/plain_tools.py`. Every case is
repeated, (a), (b) and (c) in turn, and its run of median throughput counts. No cache is used, and every call asks for
another line.

(c) is a fair baseline only if it is as fast as what it imitates, so its figures are compared with those measured of
OpenThinkIMG itself; where they differ by more than 30 %, the speed of the machine must explain it.

The last line is one JSON object. `ratio_c32` and `p95_ratio_c32`: calls/s and p95 of (a) as multiples of (c)'s at
concurrency 32, the worse of one and two replicas; `gateway_ratio`: calls/s of (b) as a share of (a)'s, likewise;
`imbalance`: calls of the busier replica over the mean, at concurrency 32; `bytes_ratio`: bytes on the wire, both ways,
of ten calls with one 10 MB picture, as a multiple of the picture; `cases`: every figure.
"""

import argparse
import asyncio
import itertools
import json
import logging
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import requests
from PIL import Image as Pillow
from PIL import ImageDraw

from thinkimg import wire
from thinkimg.client import ToolClient
from thinkimg.gateway.config import parse_config
from thinkimg.image import Image, keep_decoded_pictures
from thinkimg.serving import ServerConfig, ServerSpec, Supervisor
from thinkimg.tools.registry import TOOLS, load_tool

sys.path.insert(0, str(Path(__file__).parent / "baselines"))
from plain_tools import PlainClient

TOOL = "DrawHorizontalLineByY"
OURS, GATEWAY, PLAIN = "client", "gateway", "plain"
ORIGINAL_CALLS_PER_SECOND = 17.0
ORIGINAL_P50_MS = {1: 54, 8: 450, 32: 1740}
ORIGINAL_CPU_MS = 54.5
"""Of OpenThinkIMG's own service, measured with this tool and picture size on a machine with two cores."""
TOLERANCE = 0.3
MAIN_CONCURRENCY = 32


@dataclass(frozen=True)
class Case:
    """One run: `concurrency` callers for some seconds.

    Attributes:
        share_of_replicas: calls per replica.
        server_cpu_ms, client_cpu_ms: processor time per call. The plain client's replica that idles is counted, too.
        cpu_share: how much of one core this process got of what it wanted just before; below 1 others compete.
    """

    system: str
    replicas: int
    concurrency: int
    calls: int
    failed: int
    calls_per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    server_cpu_ms: float
    client_cpu_ms: float
    cpu_share: float
    share_of_replicas: list[int]


def chart() -> Image:
    """1200x800: bars with an axis, ticks and a grid, anti-aliased, as plotting libraries make them."""
    scale = 2
    picture = Pillow.new("RGB", (1200 * scale, 800 * scale), "white")
    pen = ImageDraw.Draw(picture)
    for number in range(9):
        y = (720 - number * 75) * scale
        pen.line((100 * scale, y, 1160 * scale, y), fill=(215, 215, 215), width=scale)
        pen.text((50 * scale, y), f"{number * 12.5:g}", fill="black", font_size=18 * scale)
    for number, height in enumerate((310, 545, 120, 600, 415, 260, 480, 90)):
        left = (130 + number * 130) * scale
        color = ((31, 119, 180), (255, 127, 14), (44, 160, 44), (148, 103, 189))[number % 4]
        pen.rectangle((left, (720 - height) * scale, left + 90 * scale, 720 * scale), fill=color)
        pen.text((left, 735 * scale), f"Group {number}", fill="black", font_size=20 * scale)
    pen.text((420 * scale, 30 * scale), "Output of eight groups in 2025", fill="black", font_size=28 * scale)
    return Image.from_pixels(picture.resize((1200, 800), Pillow.Resampling.LANCZOS))


_lines = itertools.count()


def next_y() -> float:
    """Never the same twice in a run."""
    return 5 + (next(_lines) * 0.00137) % 90


# ---- load -----------------------------------------------------------------------------------------------------------


@dataclass
class Load:
    """What callers saw."""

    latencies: list[float]
    failed: int
    seconds: float


async def load_async(call: Callable[[], Awaitable[None]], concurrency: int, seconds: float) -> Load:
    load = Load([], 0, 0.0)
    end = time.perf_counter() + seconds

    async def caller() -> None:
        while True:
            began = time.perf_counter()
            try:
                await call()
                load.latencies.append(time.perf_counter() - began)
            except Exception as error:
                load.failed += 1
                print(f"a call failed: {error}")
            if time.perf_counter() >= end:
                return

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(concurrency)))
    load.seconds = time.perf_counter() - began
    return load


def load_threads(call: Callable[[], None], concurrency: int, seconds: float) -> Load:
    load = Load([], 0, 0.0)
    end = time.perf_counter() + seconds

    def caller() -> None:
        while True:
            began = time.perf_counter()
            try:
                call()
                load.latencies.append(time.perf_counter() - began)
            except (requests.RequestException, KeyError) as error:
                load.failed += 1
                print(f"a call failed: {type(error).__name__}")
            if time.perf_counter() >= end:
                return

    began = time.perf_counter()
    with ThreadPoolExecutor(concurrency) as pool:
        for future in [pool.submit(caller) for _ in range(concurrency)]:
            future.result()
    load.seconds = time.perf_counter() - began
    return load


def cpu_share() -> float:
    """The share of one core that this process gets when it wants all of it."""
    began, used = time.perf_counter(), time.process_time()
    while time.perf_counter() - began < 0.3:
        pass
    return (time.process_time() - used) / (time.perf_counter() - began)


def cpu_seconds(pids: list[int]) -> float:
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)


def case_of(
    system: str,
    replicas: int,
    concurrency: int,
    pids: list[int],
    shares: Callable[[], list[int]],
    run: Callable[[], Load],
) -> Case:
    share = cpu_share()
    before, servers, own = shares(), cpu_seconds(pids), time.process_time()
    load = run()
    own, servers = time.process_time() - own, cpu_seconds(pids) - servers
    counted = [after - earlier for after, earlier in zip(shares(), before, strict=True)]
    calls = len(load.latencies)
    p50, p95, p99 = np.percentile(load.latencies, [50, 95, 99]) * 1000
    return Case(
        system, replicas, concurrency, calls, load.failed, round(calls / load.seconds, 2), round(p50, 1),
        round(p95, 1), round(p99, 1), round(servers / calls * 1000, 2), round(own / calls * 1000, 2), round(share, 2),
        counted,
    )  # fmt: skip


# ---- (a) ours, (b) through the gateway ------------------------------------------------------------------------------


class Ours:
    """Tool servers, and a client with a loop of its own."""

    def __init__(self, system: str, replicas: int, endpoints: list[str], pids: list[int], image: Image) -> None:
        self._system, self._replicas, self._pids, self._image = system, replicas, pids, image
        self._runner = asyncio.Runner()
        self._client = ToolClient(endpoints, timeout_seconds=120)
        self._runner.run(self._client.connect())

    def measure(self, concurrency: int, seconds: float) -> Case:
        return case_of(
            self._system, self._replicas, concurrency, self._pids, self._shares,
            lambda: self._runner.run(load_async(self._call, concurrency, seconds)),
        )  # fmt: skip

    def _shares(self) -> list[int]:
        return [replica.requests for replica in self._client.replicas]

    async def _call(self) -> None:
        outcome = await self._client.call(TOOL, {"image": "img_1", "y": next_y()}, {"img_1": self._image})
        (reply,) = outcome.result.images
        if (reply.width, reply.height) != (self._image.width, self._image.height) or reply.media_type != "image/png":
            raise ValueError("the reply is not lossless, or not of the source's size")

    def close(self) -> None:
        self._runner.run(self._client.close())
        self._runner.close()


@contextmanager
def tool_servers(count: int, folder: Path, *tools: str) -> Iterator[Supervisor]:
    config = ServerConfig.model_validate({"tools": [{"name": name} for name in tools]})
    specs = [ServerSpec(f"tools-{number}", config) for number in range(count)]
    with Supervisor(specs, folder, ready_seconds=300) as supervisor:
        yield supervisor


@contextmanager
def gateway_before(endpoints: list[str], folder: Path) -> Iterator[Supervisor]:
    config = parse_config({"servers": [{"url": url} for url in endpoints], "port": 0})
    with Supervisor(
        [ServerSpec("gateway", config, module="thinkimg.gateway")], folder, ready_seconds=300
    ) as supervisor:
        yield supervisor


# ---- (c) the plain service ------------------------------------------------------------------------------------------


class Plain:
    def __init__(self, addresses: list[str], pids: list[int], image: Image) -> None:
        self._addresses, self._pids, self._image = addresses, pids, image
        self._client = PlainClient(addresses)
        self._served = 0
        self._lock = threading.Lock()

    def measure(self, concurrency: int, seconds: float) -> Case:
        return case_of(
            PLAIN,
            len(self._addresses),
            concurrency,
            self._pids,
            self._shares,
            lambda: load_threads(self._call, concurrency, seconds),
        )

    def _shares(self) -> list[int]:
        return [self._served] + [0] * (len(self._addresses) - 1)

    def _call(self) -> None:
        self._client.call(self._image.data, next_y())
        with self._lock:
            self._served += 1

    def failures_after_a_death(self, calls: int = 5) -> int:
        """Of so many calls after its replica was killed, how many fail although another one is there."""
        os.kill(self._pids[0], signal.SIGKILL)
        failed = 0
        for _ in range(calls):
            try:
                self._call()
            except requests.RequestException:
                failed += 1
        return failed

    def close(self) -> None: ...


@contextmanager
def plain_servers(count: int) -> Iterator[tuple[list[str], list[int]]]:
    script = Path(__file__).parent / "baselines" / "plain_tools.py"
    ports = [free_port() for _ in range(count)]
    processes = [subprocess.Popen([sys.executable, str(script), "--port", str(port)]) for port in ports]
    try:
        addresses = [f"http://127.0.0.1:{port}" for port in ports]
        for address in addresses:
            wait_until_up(address)
        yield addresses, [process.pid for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_up(address: str, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            requests.post(f"{address}/worker_get_status", timeout=5).raise_for_status()
            return
        except requests.RequestException:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


# ---- is the baseline fair? ------------------------------------------------------------------------------------------


def check_of_baseline(cases: list[Case]) -> dict[str, Any]:
    """Compare (c) with the original's figures. The machine's speed is the processor time that one call takes here,
    corrected by how much of a core other programs left us; a figure that differs is valid if that speed explains it."""
    plain = [case for case in cases if case.system == PLAIN]
    cpu_ms = statistics.median(case.server_cpu_ms for case in plain)
    figures, valid = [], True
    for case in plain:
        slower = cpu_ms / ORIGINAL_CPU_MS / min(1.0, max(case.cpu_share, 0.01))
        wanted = {"calls/s": (case.calls_per_second, ORIGINAL_CALLS_PER_SECOND, 1 / slower)}
        if case.concurrency in ORIGINAL_P50_MS:
            wanted["p50 ms"] = (case.p50_ms, ORIGINAL_P50_MS[case.concurrency], slower)
        for name, (here, original, factor) in wanted.items():
            as_is, corrected = here / original, here / original / factor
            verdict = "reproduced" if near_one(as_is) else "machine's speed" if near_one(corrected) else "differs"
            valid &= verdict != "differs"
            figures.append([case.replicas, case.concurrency, name, here, original, round(corrected, 2), verdict])
    print(f"\nThe baseline against OpenThinkIMG's own figures; {cpu_ms:.1f} ms of CPU a call (original: 51-58):")
    for replicas, concurrency, name, here, original, corrected, verdict in figures:
        print(
            f"  {replicas} replica(s), concurrency {concurrency:>3}: {here:>8.1f} {name:<7} (original {original:g}; "
            f"{corrected:.2f} of it after correction for speed): {verdict}"
        )
    return {"valid": valid, "cpu_ms_per_call": cpu_ms, "figures": figures}


def near_one(ratio: float) -> bool:
    return 1 / (1 + TOLERANCE) <= ratio <= 1 + TOLERANCE


# ---- bytes on the wire ----------------------------------------------------------------------------------------------


def large_picture() -> Image:
    """About 10 MB that do not compress."""
    noise = np.random.default_rng(0).integers(0, 256, (1826, 1826, 3), np.uint8)
    return Image.from_pixels(Pillow.fromarray(noise))


@contextmanager
def counting_proxy(url: str) -> Iterator[tuple[str, list[int]]]:
    """An address that leads to `url`, and the bytes that went through, in both directions."""
    host, _, port = url.removeprefix("http://").partition(":")
    total = [0]

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 20):
            total[0] += len(data)
            writer.write(data)
            await writer.drain()
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(host, int(port))
        await asyncio.gather(pipe(reader, back), pipe(there, writer), return_exceptions=True)

    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(accept, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", total

    def end() -> None:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.call_later(0.1, loop.stop)

    loop.call_soon_threadsafe(end)
    thread.join()


def bytes_of_ten_calls(folder: Path) -> dict[str, Any]:
    image = large_picture()

    async def ten_crops(url: str) -> None:
        async with ToolClient([url], timeout_seconds=120) as client:
            for number in range(10):
                await client.call("Crop", {"image": "i", "box": [0, 0, 2, 1 + number / 10]}, {"i": image})

    with tool_servers(1, folder, "Crop") as servers, counting_proxy(servers.endpoints[0]) as (url, total):
        asyncio.run(ten_crops(url))
    return {"image_bytes": len(image.data), "wire_bytes": total[0], "ratio": round(total[0] / len(image.data), 4)}


# ---- where the time goes --------------------------------------------------------------------------------------------


def profile_of(image: Image, cases: list[Case], repeats: int = 15) -> dict[str, float]:
    """Milliseconds of processor time of a call's parts, measured one by one, beside what servers and client used per
    call under load; what the parts do not explain is HTTP, threads and the event loop."""
    tool = load_tool(TOOL)
    keep_decoded_pictures(64 * 1024 * 1024)  # as a server does
    pixels = image.pixels()
    request = wire.CallRequest({"image": "img_1", "y": 30.0}, {"img_1": wire.ImageRef(image.sha256)})
    body = wire.encode_request(request, wire.MSGPACK)
    result = tool.run({"image": "img_1", "y": 30.0}, {"img_1": image})
    answer = wire.encode(wire.result_document(result), wire.MSGPACK)
    parts: dict[str, Callable[[], Any]] = {
        "server: read the request": lambda: wire.decode_request(body, wire.MSGPACK),
        "server: decode the picture (the first call)": image._decode,
        "server: copy it (further calls)": image.pixels,
        "server: encode PNG, hash": lambda: Image.from_pixels(pixels),
        "server: the whole tool": lambda: tool.run({"image": "img_1", "y": 30.0}, {"img_1": image}),
        "server: write the answer": lambda: wire.encode(wire.result_document(result), wire.MSGPACK),
        "client: read the answer, hash": lambda: wire.decode_result(answer, wire.MSGPACK),
    }
    spent = {name: cpu_ms_of(work, repeats) for name, work in parts.items()}
    under_load = [case for case in cases if case.system == OURS and case.concurrency == MAIN_CONCURRENCY] or cases
    spent["server: all, under load"] = statistics.median(case.server_cpu_ms for case in under_load)
    spent["client: all, under load"] = statistics.median(case.client_cpu_ms for case in under_load)
    print(f"\nWhere the time of a call goes (ms of CPU; the answer has {len(answer):,} bytes):")
    for name, milliseconds in spent.items():
        print(f"  {name:<44} {milliseconds:>7.2f}")
    return {name: round(milliseconds, 3) for name, milliseconds in spent.items()}


def cpu_ms_of(work: Callable[[], Any], repeats: int) -> float:
    work()
    taken = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        taken.append((time.process_time() - began) * 1000)
    return statistics.median(taken)


# ---- the comparison -------------------------------------------------------------------------------------------------


def measure(replicas: int, options: argparse.Namespace, image: Image, folder: Path) -> list[Case]:
    """Every system at every concurrency, in turn; of the repeats of a case the one of median throughput."""
    with (
        tool_servers(replicas, folder, TOOL) as servers,
        gateway_before(servers.endpoints, folder) as gateway,
        plain_servers(replicas) as (addresses, plain_pids),
    ):
        plain = Plain(addresses, plain_pids, image)
        pids = list(servers.pids.values())
        systems: list[Ours | Plain] = [
            Ours(OURS, replicas, servers.endpoints, pids, image),
            Ours(GATEWAY, replicas, gateway.endpoints, [*pids, *gateway.pids.values()], image),
            plain,
        ]
        cases = []
        for concurrency in options.concurrency:
            runs: dict[str, list[Case]] = {}
            for _ in range(options.repeats):
                for system in systems:
                    case = system.measure(concurrency, options.seconds)
                    runs.setdefault(case.system, []).append(case)
                    show(case)
            for repeated in runs.values():
                cases.append(sorted(repeated, key=lambda case: case.calls_per_second)[len(repeated) // 2])
        if replicas > 1:
            print(f"plain: {plain.failures_after_a_death()} of 5 calls fail after its replica died")
        for system in systems:
            system.close()
    return cases


def show(case: Case) -> None:
    print(
        f"{case.system:<8} {case.replicas} replica(s), concurrency {case.concurrency:>3}: "
        f"{case.calls_per_second:>7.1f} calls/s, p50 {case.p50_ms:>7.1f}, p95 {case.p95_ms:>7.1f}, "
        f"p99 {case.p99_ms:>7.1f} ms; CPU {case.server_cpu_ms:>5.1f} + {case.client_cpu_ms:.1f} ms a call; "
        f"{':'.join(map(str, case.share_of_replicas))}; {case.failed} failed; core {case.cpu_share:.0%} ours",
        flush=True,
    )


def pairs(cases: list[Case], one: str, other: str) -> list[tuple[Case, Case]]:
    """The same case of two systems, at the main concurrency."""
    found = {(case.system, case.replicas): case for case in cases if case.concurrency == MAIN_CONCURRENCY}
    return [
        (case, found[other, replicas])
        for (system, replicas), case in found.items()
        if system == one and (other, replicas) in found
    ]


def summary_of(cases: list[Case]) -> dict[str, float]:
    result = {}
    if against := pairs(cases, OURS, PLAIN):
        result["ratio_c32"] = round(min(a.calls_per_second / c.calls_per_second for a, c in against), 2)
        result["p95_ratio_c32"] = round(max(a.p95_ms / c.p95_ms for a, c in against), 3)
    if behind := pairs(cases, GATEWAY, OURS):
        result["gateway_ratio"] = round(min(b.calls_per_second / a.calls_per_second for b, a in behind), 3)
    shares = [case.share_of_replicas for case, _ in against if case.replicas > 1]
    if shares:
        result["imbalance"] = round(max(max(share) / statistics.mean(share) for share in shares), 3)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description="Calls of a drawing tool: our client, the gateway, a plain service.")
    parser.add_argument(
        "--concurrency", default="1,8,32,128", type=lambda text: [int(part) for part in text.split(",")]
    )
    parser.add_argument("--replicas", default="1,2", type=lambda text: [int(part) for part in text.split(",")])
    parser.add_argument("--seconds", type=float, default=6, help="of one run")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    logging.disable(logging.INFO)
    assert TOOL in TOOLS
    image = chart()
    cases: list[Case] = []
    with tempfile.TemporaryDirectory() as folder:
        for replicas in options.replicas:
            cases += measure(replicas, options, image, Path(folder) / str(replicas))
        on_wire = bytes_of_ten_calls(Path(folder) / "bytes")
    print(f"\nTen calls with one picture of {on_wire['image_bytes']:,} bytes: {on_wire['wire_bytes']:,} on the wire")
    check = check_of_baseline(cases)
    profile = profile_of(image, cases)
    result = summary_of(cases) | {"bytes_ratio": on_wire["ratio"], "baseline_valid": check["valid"]}
    raw = {"cases": [asdict(case) for case in cases], "bytes": on_wire, "baseline": check, "profile_ms": profile}
    print(json.dumps(result | raw))


if __name__ == "__main__":
    main()
