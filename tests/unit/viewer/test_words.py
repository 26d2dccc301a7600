"""The two pages have words for everything that a record or a log can say."""

import re
from pathlib import Path
from typing import get_args

import pytest

from tests.support import REPOSITORY
from thinkimg.jsonfile import Figure
from thinkimg.training_log import GRPOLine, SFTLine
from thinkimg.trajectory import Status
from thinkimg.viewer.queries import _NOT_CURVES
from thinkimg.viewer.sample import Mode

FRONTEND = REPOSITORY / "frontend" / "src"
WORDS, CURVES, PAGE = FRONTEND / "words.ts", FRONTEND / "curves.tsx", REPOSITORY / "thinkimg" / "viewer" / "report.js"


def keys(path: Path, table: str) -> set[str]:
    """Of an object in TypeScript or JavaScript whose values are words, or lists of words."""
    found = re.search(rf"const {table}\b[^=]*= {{\n(.*?)\n *}};$", path.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    return set(re.findall(r'(\w+): *(?="|\[)', found[1]))


@pytest.mark.parametrize("path", [WORDS, PAGE], ids=["thinkimg view", "the run's page"])
def test_every_status_has_words(path: Path) -> None:
    assert keys(path, "ENDED") == set(get_args(Status))


def test_every_mode_has_words() -> None:
    assert keys(WORDS, "MODES") == set(get_args(Mode))


def test_every_figure_of_a_step_has_a_title_with_its_unit() -> None:
    drawn = {
        name
        for line in (SFTLine, GRPOLine)
        for name, field in line.model_fields.items()
        if field.annotation in (int, int | None, get_args(Figure)[0]) and name not in _NOT_CURVES
    }
    assert {"reward", "loss", "flat", "tokens_trained"} <= drawn
    assert drawn - keys(CURVES, "TITLES") - {"total_steps"} == set()
