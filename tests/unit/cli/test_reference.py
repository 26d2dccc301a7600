"""docs/reference/command-line.md says what the commands say."""

from generate_cli_reference import PAGE, page

from thinkimg.api.pod_contract import ExitCode
from thinkimg.cli.replay import DIFFERENT


def test_the_page_is_what_its_script_makes() -> None:
    assert PAGE.read_text() == page(), "run hack/generate_cli_reference.py"


def test_the_page_names_every_exit_code() -> None:
    assert all(f"\n| {int(code)} | " in page() for code in (*ExitCode, DIFFERENT))
