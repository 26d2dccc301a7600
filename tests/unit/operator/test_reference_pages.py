"""The pages about the operator say what it says."""

import re
import runpy
from pathlib import Path

from thinkimg_operator.metrics import Metrics
from thinkimg_operator.toolrljob.metrics import JobMetrics

ROOT = Path(__file__).parents[3]


def test_the_page_of_conditions_is_up_to_date():
    generator = runpy.run_path(str(ROOT / "hack" / "generate_conditions_reference.py"))
    page = (ROOT / "docs" / "reference" / "conditions.md").read_text()
    assert page == generator["generate"](), "run: python hack/generate_conditions_reference.py"


def test_the_guide_lists_every_metric():
    guide = (ROOT / "docs" / "guides" / "operator.md").read_text()
    listed = set(re.findall(r"^\| `(\w+)` \|", guide, re.MULTILINE))
    shown = Metrics()
    JobMetrics(shown.registry, list)
    metrics = {
        f"{family.name}_total" if family.type == "counter" else family.name for family in shown.registry.collect()
    }
    assert listed == metrics
