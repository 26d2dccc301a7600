"""Scripts of `hack/`: the soak's manifest and verdict, the README's table, the ablations."""

import asyncio
from pathlib import Path

import ablations
import compare_coverage
import pytest
import soak
import update_readme_table
import yaml
from coverage import CoverageData
from PIL import Image as Pillow

from thinkimg.api.v1alpha1 import check_local, parse_manifest
from thinkimg.client import ToolClient
from thinkimg.errors import InfrastructureError, ModelError
from thinkimg.image import Image
from thinkimg.jsonfile import write
from thinkimg.results import RunResults, SeedsMean, TableResults, ToolErrors, ToolFigures
from thinkimg.serving import ServerConfig, ServerSpec, Supervisor

ROOT = Path(__file__).parents[3]


def test_the_soaks_manifest_is_a_valid_short_demo():
    demo = list(yaml.safe_load_all(soak.DEMO.read_text()))
    manifest = parse_manifest(yaml.safe_dump_all(soak.shortened(demo, steps=7)))
    stages = manifest.job("soak").spec.stages
    assert [stage.name for stage in stages] == list(soak.STAGES)
    assert stages[-1].grpo.max_steps == 7
    assert check_local(manifest).problems == []


def test_the_soak_wants_a_thousand_calls_over_http():
    def tools(calls: int, hits: int = 0, failed: int = 0) -> dict[str, ToolFigures]:
        ocr = ToolFigures(http_calls=calls, cache_hits=hits, errors=ToolErrors(model=3, infrastructure=failed))
        return {"OCR": ocr, "Crop": ToolFigures(http_calls=1)}

    assert soak.verdict(tools(999))["passed"]
    assert not soak.verdict(tools(998))["passed"]
    assert not soak.verdict(tools(5000, hits=1))["passed"]
    assert not soak.verdict(tools(5000, failed=1))["passed"]


@pytest.fixture
def measured(tmp_path):
    seeds = {str(seed): RunResults(models={}, seed=seed) for seed in range(3)}
    write(tmp_path / "results.json", TableResults(seeds=seeds, mean=SeedsMean(models={})))
    (tmp_path / "results.md").write_text("| Model |\n|---|\n| V-ToolRL \\1 |\n")
    return tmp_path


def test_the_measured_table_goes_between_the_markers(measured):
    table = update_readme_table.table_of(measured, [0, 1, 2])
    readme = "before\n<!-- table -->\nold\n<!-- /table -->\nafter\n"
    written = update_readme_table.with_table(readme, table)
    assert written == f"before\n<!-- table -->\n{table.strip()}\n<!-- /table -->\nafter\n"
    assert update_readme_table.with_table(written, table) == written


def test_a_table_of_other_seeds_is_refused(measured):
    with pytest.raises(ValueError, match=r"has seeds \[0, 1, 2\], the manifest has \[0, 1\]"):
        update_readme_table.table_of(measured, [0, 1])


def test_a_missing_table_is_refused(tmp_path):
    with pytest.raises(ValueError, match="run `make table`"):
        update_readme_table.table_of(tmp_path, [0])


def test_a_readme_without_markers_is_refused():
    with pytest.raises(ValueError, match="0 places"):
        update_readme_table.with_table("nothing", "table")


def test_the_ablations_differ_in_one_thing_each():
    manifest = parse_manifest(ablations.manifest_of(ablations.DEMO.read_text(), steps=7))
    assert check_local(manifest).problems == []
    stages = {stage.name: stage for stage in manifest.job("ablations").spec.stages}
    variants = {name: stages[name].grpo.model_dump() for name in ablations.VARIANTS}
    assert all(variant["maxSteps"] == 7 for variant in variants.values())
    assert variants["refill"] == variants["plain"] | {"refill": True}
    assert variants["flaky-told-apart"] == variants["flaky-blamed"] == variants["plain"]
    assert {stages[name].from_ for name in variants} == {"sft"}
    assert stages["table"].evaluate.split == "validation"


@pytest.mark.parametrize("kind", ablations.FAULTS)
def test_a_fifth_of_the_calls_fails_as_the_ablation_says(tmp_path, kind):
    """Through the proxy, to a real server: what fails is the infrastructure's in one experiment, the model's in the
    other."""
    config = ServerConfig.model_validate({"tools": [{"name": "Crop"}]})
    picture = Image.from_pixels(Pillow.new("RGB", (40, 40), "white"))

    async def outcomes(url: str) -> list[str]:
        async with ToolClient([url], retries=0) as client:
            found = []
            for number in range(200):
                try:
                    box = [0, 0, 10 + number / 4, 50]
                    result = await client.call("Crop", {"image": "img_1", "box": box}, {"img_1": picture})
                    found.append("cut" if result.result.images else "nothing")
                except (InfrastructureError, ModelError) as error:
                    found.append(type(error).__name__)
            return found

    with (
        Supervisor([ServerSpec("tools", config)], tmp_path) as servers,
        ablations.flaky(servers.endpoints[0], ablations.FAULTS[kind], "seed") as url,
    ):
        found = asyncio.run(outcomes(url))
    expected = {"flaky-told-apart": "InfrastructureError", "flaky-blamed": "ModelError"}[kind]
    assert set(found) == {"cut", expected}
    assert 20 <= found.count(expected) <= 60


def test_a_part_of_the_tests_is_compared_with_all_of_them_line_by_line(tmp_path):
    module = tmp_path / "module.py"
    module.write_text("a = 1\nb = 2\nc = 3\nd = 4\ne = 5\n")
    for name, lines in {"part": [1, 2, 5], "whole": [1, 2, 3, 4]}.items():
        data = CoverageData(str(tmp_path / name))
        data.add_lines({str(module): lines})
        data.write()
    found = compare_coverage.compare(tmp_path / "part", tmp_path / "whole")
    assert found == {"statements": 5, "whole": 4, "part": 3, "part_of_statements": 0.6, "part_of_whole": 0.5}
