"""Really started gateways, in front of really started tool servers."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

READY_SECONDS = 240


@dataclass
class Gateway:
    """A running process."""

    url: str
    process: "subprocess.Popen[bytes]"
    log_path: Path

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    @property
    def rss_bytes(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) * 1024

    def stop(self, seconds: float = 40) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)


@contextmanager
def run_gateway(
    folder: Path, environment: dict[str, str] | None = None, open_files: int | None = None, **config: Any
) -> Iterator[Gateway]:
    """`thinkimg gateway --config FILE` on a free port, until the block ends.

    Args:
        open_files: how many it may have, soft and hard.
    """
    command = ["thinkimg.cli", "gateway"]
    with run_process(folder, command, environment, open_files, **config) as gateway:
        yield gateway


@contextmanager
def run_process(
    folder: Path, module: list[str], environment: dict[str, str] | None, open_files: int | None, **config: Any
) -> Iterator[Gateway]:
    """`python -m MODULE --config FILE`, of a gateway or a tool server; see `run_gateway`."""
    folder.mkdir(parents=True, exist_ok=True)
    file, ready, log = folder / "gateway.yaml", folder / "ready.json", folder / "gateway.log"
    file.write_text(yaml.safe_dump({"port": 0, **config}))
    command = [sys.executable, "-m", *module, "--config", str(file), "--ready-file", str(ready)]
    if open_files is not None:
        command = ["sh", "-c", 'ulimit -n "$0" && exec "$@"', str(open_files), *command]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **(environment or {})})
    try:
        deadline = time.monotonic() + READY_SECONDS
        while not ready.exists():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield Gateway(json.loads(ready.read_text())["url"], process, log)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
