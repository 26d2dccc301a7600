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


@pytest.fixture
def open_page(chromium):
    """Opens an address and, when the test is over, asserts that the console was silent and nothing else asked for."""
    contexts, troubles = [], []

    def open_at(address: str, width: int = 1440, dark: bool = False, **more):
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light", **more
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: troubles.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        origin = address.split("#")[0].split("?")[0].rpartition("/")[0]
        page.on(
            "request",
            lambda request: (
                None if request.url.startswith((origin, "data:", "blob:")) else troubles.append(request.url)
            ),
        )
        page.goto(address)
        page.wait_for_selector(".rows li a, .charts, .nothing, .key, .docs h2")
        return page

    yield open_at
    for context in contexts:
        context.close()
    assert not troubles
