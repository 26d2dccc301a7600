"""The GPU check's own rules: which checks run, what is said of the others, and how it exits."""

import gpu_wheels
import pytest

from tests.gpu.gpu_check import FAILED, LEFT_OUT, NOTHING, PASSED, verdict
from tests.support.gpu.checks import CHECKS
from tests.support.gpu.tiers import TIERS, left_out, missing

ALL_THERE = {tier: [] for tier in TIERS}
ASKED = "without vllm, as asked"


def running(device: str, absent: dict[str, list[str]], *without: str) -> set[str]:
    return {name for name, check in CHECKS.items() if left_out(check, device, ALL_THERE | absent, without) is None}


def test_with_torch_and_transformers_alone_a_part_runs():
    absent = {tier: ["x"] for tier in TIERS if tier != "plain"}
    assert running("cuda", absent) == {"rollouts", "flash_attention"}


def test_without_vllm_everything_else_runs():
    assert running("cuda", {"vllm": ["vllm"]}) == set(CHECKS) - {"colocated_engine"}
    assert running("cuda", {}, "vllm") == set(CHECKS) - {"colocated_engine"}


def test_what_is_left_out_is_said_with_the_reason():
    reason = left_out(CHECKS["zero3_lora"], "cuda", ALL_THERE | {"deepspeed": ["deepspeed"]}, ())
    assert reason == "deepspeed not installed (tier deepspeed)"
    assert left_out(CHECKS["colocated_engine"], "cpu", ALL_THERE, ()) == "it needs a GPU"
    assert left_out(CHECKS["colocated_engine"], "cuda", ALL_THERE, ["vllm"]) == ASKED


@pytest.mark.parametrize(
    ("checks", "skipped", "code"),
    [
        ({"a": True}, {}, PASSED),
        ({"a": True}, {"b": ASKED}, PASSED),
        ({"a": True}, {"b": "vllm not installed (tier vllm)"}, LEFT_OUT),
        ({"a": True, "c": False}, {"b": "it needs a GPU"}, FAILED),
        ({}, {"b": "it needs a GPU"}, NOTHING),
    ],
)
def test_the_exit_code_tells_failed_from_left_out(checks, skipped, code):
    assert verdict({name: {"ok": ok} for name, ok in checks.items()}, skipped) == code


def test_every_tier_but_the_engines_is_installed_here():
    assert {tier for tier in TIERS if missing(tier)} <= {"deepspeed", "vllm"}


def test_wheels_are_fetched_for_what_the_machine_lacks():
    lock = ["trl==1.16.0", "torch==2.13.0", "nvidia-cublas==13.1 ; sys_platform == 'linux'", "Jinja2==3.1.6",
            "numpy==2.4 ; python_full_version < '3.12'", "numpy==2.5 ; python_full_version >= '3.12'"]  # fmt: skip
    have = gpu_wheels.names_of(["# frozen", "jinja2==3.0", "-e git+https://x", "Pillow @ file:///x"])
    assert have == {"jinja2", "pillow"}
    assert gpu_wheels.needed(lock, "3.12", have) == ["trl==1.16.0", "numpy==2.5"]
