import os
import sys

import pytest

from tests.support.browser.chromium import ARGUMENTS, find_chromium


@pytest.fixture(scope="module")
def chromium():
    """The system's Chromium, headless. In CI it must be there.

    Not for the whole session: while it is open, Playwright runs an event loop in this thread, and no other test could.
    """
    executable = find_chromium()
    if executable is None:
        reason = "no Chromium found: install it, or name it in THINKIMG_CHROMIUM. THE PAGE WAS NOT TESTED."
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(reason)
        print(f"\n{reason}", file=sys.stderr)
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def report(tmp_path_factory):
    """report.html of a fabricated run, alone in a folder: nothing beside it may be needed."""
    from tests.support.viewer.fabricated_run import write_run
    from thinkimg.evaluation.report import collect
    from thinkimg.viewer.page import write_page

    run = write_run(tmp_path_factory.mktemp("browser") / "run")
    return write_page(run, collect(run), tmp_path_factory.mktemp("mailed") / "report.html")
