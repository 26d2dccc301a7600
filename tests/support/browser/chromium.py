"""The browser of this machine, and how it is started without a screen."""

import os
import shutil

CANDIDATES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
)


def find_chromium() -> str | None:
    named = os.environ.get("THINKIMG_CHROMIUM")
    return named or next((path for name in CANDIDATES if (path := shutil.which(name))), None)
