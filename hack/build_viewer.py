"""Builds the page of `thinkimg view` from frontend/ into thinkimg/viewer/static, or checks that it is current.

    python hack/build_viewer.py            # needs node and npm
    python hack/build_viewer.py --check    # by digests, and where frontend/node_modules is there, by building again

The built files are committed, so that nobody who installs, tests or packages ThinkIMG needs node. The first line of
each holds the digest of its sources and of what follows.
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
FRONTEND = ROOT / "frontend"
STATIC = ROOT / "thinkimg" / "viewer" / "static"
NAMES = ("viewer.js", "play.js", "docs.js", "viewer.css")
_SCRIPT = ("--bundle", "--target=es2022", "--format=iife", "--jsx=automatic", "--jsx-import-source=preact")
ESBUILD = (
    ("src/main.tsx", *_SCRIPT),
    ("src/play.tsx", *_SCRIPT),
    ("src/docs.tsx", *_SCRIPT),
    ("src/viewer.css", "--target=chrome123,firefox120,safari17.5"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        check()
    else:
        install()
        STATIC.mkdir(exist_ok=True)
        for name, text in build().items():
            (STATIC / name).write_text(text, encoding="utf-8")
            print(f"{STATIC / name}: {len(text):,} characters")
        shutil.copyfile(FRONTEND / "node_modules" / "preact" / "LICENSE", STATIC / "preact.LICENSE")  # it is inside


def install() -> None:
    """Exactly what package-lock.json says; no package's own scripts are run."""
    if shutil.which("npm") is None:
        sys.exit("building the viewer needs node and npm; installing or running it does not")
    marker = FRONTEND / "node_modules" / ".package-lock.json"
    if not marker.exists() or marker.stat().st_mtime < (FRONTEND / "package-lock.json").stat().st_mtime:
        subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=FRONTEND, check=True)
        marker.touch()


def build() -> dict[str, str]:
    """The built files with their first lines. Types are checked first."""
    binaries = FRONTEND / "node_modules" / ".bin"
    subprocess.run([binaries / "tsc", "--noEmit"], cwd=FRONTEND, check=True)
    built = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, arguments in zip(NAMES, ESBUILD, strict=True):
            out = Path(folder) / name
            common = ("--minify", "--charset=utf8", "--legal-comments=none", "--log-level=warning", f"--outfile={out}")
            subprocess.run([binaries / "esbuild", *arguments, *common], cwd=FRONTEND, check=True)
            text = out.read_text(encoding="utf-8")
            built[name] = first_line(sources(), text) + text
    return built


def check() -> None:
    """Exits with 1 and what to do where a file is missing, stale or was edited."""
    if not (STATIC / "preact.LICENSE").exists():
        sys.exit("thinkimg/viewer/static/preact.LICENSE is missing: run `make viewer` (needs node)")
    remedy = "run `make viewer` (needs node) and commit thinkimg/viewer/static"
    for name in NAMES:
        try:
            line, _, text = (STATIC / name).read_text(encoding="utf-8").partition("\n")
        except FileNotFoundError:
            sys.exit(f"{name} is missing: {remedy}")
        if line + "\n" != first_line(sources(), text):
            sys.exit(f"{name} was not built from frontend/ as it is, or was edited: {remedy}")
    if shutil.which("node") and (FRONTEND / "node_modules" / ".bin" / "esbuild").exists():
        for name, text in build().items():
            if text != (STATIC / name).read_text(encoding="utf-8"):
                sys.exit(f"{name} differs from what frontend/ builds: {remedy}")
        print("thinkimg/viewer/static is what frontend/ builds")
    else:
        print("thinkimg/viewer/static is current, by its digests (no node here to build it again)")


def sources() -> str:
    """Digest of everything that the build reads."""
    paths = [FRONTEND / name for name in ("package.json", "package-lock.json", "tsconfig.json")]
    digest = hashlib.sha256(repr(ESBUILD).encode())
    for path in [*paths, *sorted((FRONTEND / "src").iterdir())]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def first_line(source: str, text: str) -> str:
    return f"/* Built from frontend/ ({source[:32]}), {hashlib.sha256(text.encode()).hexdigest()[:32]} */\n"


if __name__ == "__main__":
    main()
