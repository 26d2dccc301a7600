"""Wheels for a machine that has a GPU, torch and transformers, but no network: what `make gpu-check` wants beside them.

    python hack/gpu_wheels.py wheels [--have freeze.txt] [--python 3.12] [--most 64]

The versions are those of uv.lock. `--have` is what `pip freeze` says there (names alone do as well): what is listed is
not brought, whatever its version. torch, transformers and what they are made of are never brought. On the machine:

    python3 -m pip install --no-index --no-deps --target site wheels/*.whl
    PYTHONPATH=site:. make gpu-check GPU_PYTHON=python3

DeepSpeed has no wheel of its own: one without compiled kernels is built. What cannot be had is left out and said; vLLM,
which wants a torch of its own, is not asked for. The last line is one JSON object; exit code 1: more than `--most` MiB.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from packaging.markers import Marker

ROOT = Path(__file__).parents[1]
EXTRAS = ("train", "serving", "tools", "deepspeed")
ALSO = ("psutil",)
"""Of the development tools: the rehearsal measures memory with it."""
THERE = re.compile(r"torch|torchvision|transformers|tokenizers|safetensors|huggingface-hub|triton|(nvidia|cuda)-.*")
PLATFORMS = tuple(
    f"manylinux{name}_x86_64" for name in ("_2_34", "_2_31", "_2_28", "_2_27", "_2_24", "_2_17", "2014", "1")
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--have", type=Path, help="what `pip freeze` says on the machine")
    parser.add_argument("--python", default="3.12", help="the machine's version of Python")
    parser.add_argument("--most", type=float, default=64, help="MiB that the wheels may have together")
    options = parser.parse_args()
    have = names_of(options.have.read_text().splitlines()) if options.have else set()
    wanted = needed([*_locked(), *_of_lock(ALSO)], options.python, have)
    options.out.mkdir(parents=True, exist_ok=True)
    missing = [pin for pin in wanted if not _download(pin, options.out, options.python)]
    mib = sum(path.stat().st_size for path in options.out.glob("*.whl")) / 2**20
    print(json.dumps({"wheels": len(wanted) - len(missing), "mib": round(mib, 1), "without_a_wheel": missing}))
    return int(mib > options.most)


def needed(lines: Iterable[str], python: str, have: set[str]) -> list[str]:
    """Of the lines of a lock (`name==version ; marker`), those for Linux and this Python that are not there yet."""
    found = []
    for line in lines:
        pin, _, marker = (part.strip() for part in line.partition(";"))
        (name,) = names_of([pin])
        if THERE.fullmatch(name) or name in have:
            continue
        if not marker or Marker(marker).evaluate(_machine(python)):
            found.append(pin)
    return found


def names_of(lines: Iterable[str]) -> set[str]:
    """Normalised names of the packages that `pip freeze` lists."""
    written = (re.split(r"[=<>@\[ ;]", line.strip())[0] for line in lines if not line.startswith(("#", "-")))
    return {re.sub(r"[-_.]+", "-", name).lower() for name in written if name}


def _machine(python: str) -> dict[str, str]:
    return {
        "python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux",
        "platform_machine": "x86_64", "platform_system": "Linux", "os_name": "posix",
        "implementation_name": "cpython", "platform_python_implementation": "CPython",
    }  # fmt: skip


def _uv() -> str:
    return shutil.which("uv") or str(ROOT / ".cache" / "uv" / "bin" / "uv")


def _locked() -> list[str]:
    extras = [word for extra in EXTRAS for word in ("--extra", extra)]
    plain = ["--no-dev", "--no-hashes", "--no-annotate", "--no-header", "--no-emit-workspace"]
    command = [_uv(), "export", "--frozen", *plain, *extras]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()


def _of_lock(names: Sequence[str]) -> list[str]:
    packages = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    return [f"{package['name']}=={package['version']}" for package in packages if package["name"] in names]


def _download(pin: str, out: Path, python: str) -> bool:
    """Whether there is a wheel of it, or one can be made that fits any machine; it is then in `out`."""
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    ready = [
        "--only-binary=:all:",
        "--implementation",
        "cp",
        "--python-version",
        python,
        *platforms,
        "--dest",
        str(out),
    ]
    if _pip("download", *ready, pin):
        return True
    with TemporaryDirectory() as made:
        if not _pip("wheel", "--wheel-dir", made, pin):
            return False
        wheels = list(Path(made).glob("*-none-any.whl"))
        for wheel in wheels:
            shutil.move(wheel, out / wheel.name)
    return bool(wheels)


def _pip(*arguments: str) -> bool:
    command = [_uv(), "run", "--no-project", "--with", "pip", "python", "-m", "pip", *arguments, "--quiet", "--no-deps"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(f"{arguments[-1]}: {''.join(done.stderr.strip().splitlines()[-1:])}", file=sys.stderr)
    return not done.returncode


if __name__ == "__main__":
    sys.exit(main())
