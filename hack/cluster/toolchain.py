"""A Go toolchain: the machine's when it is new enough, otherwise one that is fetched and pinned.

Go publishes its toolchains as modules, so the module proxy that serves the sources serves the compiler too, and
their checksums are those of Go's checksum database: `go mod download -json golang.org/toolchain@v0.0.1-go1.26.8…`.
"""

from __future__ import annotations

import base64
import hashlib
import os
import platform
import re
import shutil
import subprocess
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path

VERSION = "1.26.8"
PUBLIC_PROXY = "https://proxy.golang.org"
SUMS = {
    "linux-amd64": "h1:ZOmGe1OnfREDMIdb1Qi4G9JSuDPBLGExZMQ4nis1RXM=",
    "linux-arm64": "h1:sYL/O6MqS68ML0kjsQ36WoYIpJqkw60TxizWUYUKQMc=",
    "darwin-amd64": "h1:7/9KPPN8PckcA9s91hm2jmQMhzW4KyTJXHIs45L0C9M=",
    "darwin-arm64": "h1:dFjGhY6f8DTsY8/rLchUTDRRfjJP4pCrGCwxvHFT2Fg=",
}


class ToolchainError(Exception):
    """There is no Go on this machine and none could be fetched."""


def platform_name() -> str:
    """This machine as Go names it, as in `linux-amd64`."""
    machine = platform.machine().lower()
    return f"{platform.system().lower()}-{ {'x86_64': 'amd64', 'aarch64': 'arm64'}.get(machine, machine) }"


def go(cache: Path, say: Callable[[str], None]) -> Path:
    """The `go` to build with; fetched into `cache` when the machine has none of at least `VERSION`'s language.

    Raises ToolchainError with the reason.
    """
    installed = shutil.which("go") or "/usr/local/go/bin/go"
    found = _version_of(installed)
    if found is not None and found >= _numbers(VERSION)[:2]:
        return Path(installed)
    fetched = cache / f"go{VERSION}-{platform_name()}"
    if not (fetched / "bin" / "go").exists():
        had = f"Go {'.'.join(map(str, found))} is too old" if found else "there is no Go"
        say(f"{had}: fetching Go {VERSION} ({platform_name()}, about 70 MB) through the module proxy")
        _fetch(fetched)
    return fetched / "bin" / "go"


def _version_of(executable: str) -> tuple[int, ...] | None:
    try:
        # GOTOOLCHAIN=local: the version that is there, not one that it would fetch.
        environment = {**os.environ, "GOTOOLCHAIN": "local"}
        shown = subprocess.run([executable, "env", "GOVERSION"], capture_output=True, text=True, env=environment)
    except OSError:
        return None
    return _numbers(shown.stdout) if shown.returncode == 0 and "go" in shown.stdout else None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def _fetch(target: Path) -> None:
    if platform_name() not in SUMS:
        raise ToolchainError(f"no Go toolchain is pinned for {platform_name()}; install Go {VERSION} or newer")
    module = f"golang.org/toolchain@v0.0.1-go{VERSION}.{platform_name()}"
    target.parent.mkdir(parents=True, exist_ok=True)
    archive = target.with_suffix(f".zip-{os.getpid()}")
    try:
        _download(f"golang.org/toolchain/@v/{module.partition('@')[2]}.zip", archive)
        found = _sum_of(archive)
        if found != SUMS[platform_name()]:
            raise ToolchainError(f"{module} has checksum {found}, not the pinned {SUMS[platform_name()]}")
        unpacked = target.with_suffix(f".new-{os.getpid()}")
        with zipfile.ZipFile(archive) as content:
            content.extractall(unpacked)
        root = unpacked / module
        for program in [*(root / "bin").iterdir(), *(root / "pkg" / "tool").rglob("*")]:
            program.chmod(0o755)  # a module's zip carries no modes
        root.rename(target)
        shutil.rmtree(unpacked)
    finally:
        archive.unlink(missing_ok=True)


def _download(path: str, target: Path) -> None:
    proxies = [p for p in re.split(r"[,|]", os.environ.get("GOPROXY", "")) if p.startswith(("http://", "https://"))]
    reasons = []
    for proxy in [*proxies, PUBLIC_PROXY]:
        url = f"{proxy.rstrip('/')}/{path}"
        try:
            with urllib.request.urlopen(url, timeout=60) as answer, target.open("wb") as file:
                shutil.copyfileobj(answer, file)
            return
        except OSError as error:
            reasons.append(f"{url}: {error}")
    raise ToolchainError(f"Go {VERSION} could not be fetched: {'; '.join(reasons)}")


def _sum_of(archive: Path) -> str:
    """Go's `h1:` checksum of a module's zip: the hash of the sorted list of its files' hashes."""
    listing = hashlib.sha256()
    with zipfile.ZipFile(archive) as content:
        for name in sorted(content.namelist()):
            listing.update(f"{hashlib.sha256(content.read(name)).hexdigest()}  {name}\n".encode())
    return f"h1:{base64.b64encode(listing.digest()).decode()}"
