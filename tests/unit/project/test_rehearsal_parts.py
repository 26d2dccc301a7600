"""What the rehearsal at full size is made of: shapes, tokenizer, script, manifest, memory."""

import json
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from psutil import Process
from rehearsal.__main__ import table
from rehearsal.checkpoint import build_tokenizer
from rehearsal.experiment import TOKENS, manifest
from rehearsal.forced import TURNS, ScriptedSampler, scripted, turn_of
from rehearsal.measure import Meter, Phase, memory_gib
from rehearsal.shapes import SHAPES, SPECIAL
from transformers import AutoConfig, AutoModelForImageTextToText

from thinkimg.agent.formats import get_format
from thinkimg.api.v1alpha1 import check_local, parse_manifest
from thinkimg.models.families.qwen_vl import QwenVL
from thinkimg.models.generator import GenerationRequest


@pytest.fixture(scope="module", params=SHAPES)
def shape(request):
    return SHAPES[request.param]


@pytest.fixture(scope="module")
def tokenizer(shape):
    return build_tokenizer(shape)


def test_a_shape_has_as_many_parameters_as_the_hub_says_and_a_small_one_far_fewer(shape, tmp_path):
    counts = []
    for each in (shape, shape.small()):
        (tmp_path / "config.json").write_text(json.dumps(each.config))
        with torch.device("meta"):
            model = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(tmp_path))
        model.tie_weights()
        counts.append(sum(weight.numel() for weight in model.parameters()))
    assert counts[0] == shape.parameters
    assert counts[1] < 11e6


@pytest.mark.slow
def test_the_tokenizer_has_the_real_special_tokens_at_their_real_ids(shape, tokenizer):
    assert [tokenizer.convert_tokens_to_ids(token) for token in SPECIAL] == list(range(151643, 151657))
    assert len(tokenizer) == 151657 + len(shape.added)
    text = "Zoom into the 2nd panel; <|image_pad|> is text, ä, 图."
    assert tokenizer.decode(tokenizer(text, split_special_tokens=True)["input_ids"]) == text


@pytest.mark.slow
def test_the_generators_own_sampler_says_the_script_and_records_the_models_probabilities(shape, tokenizer):
    family = QwenVL(SimpleNamespace(tokenizer=tokenizer))
    turns: dict[int, list[str]] = {turn: [] for turn in range(1, TURNS + 1)}
    torch.manual_seed(0)
    for turn, texts in turns.items():
        prompt = tokenizer("<|im_start|>" * (2 * turn + 1))["input_ids"]
        requests = [GenerationRequest(prompt, [], TOKENS, 1.0, seed) for seed in (11, 12)]
        sampler = ScriptedSampler(requests, family, torch.device("cpu"))
        shares = []
        while not sampler.finished:
            logits = torch.randn(2, shape.text["vocab_size"])
            plain = logits.clone()
            plain[:, list(family.suppressed_ids)] = -torch.inf
            shares.append(plain.log_softmax(-1))
            sampler.step(logits, len(shares) - 1)
        for row, made in enumerate(sampler.results()):
            texts.append(family.decode(made.tokens))
            expected = [float(shares[n][row, token]) for n, token in enumerate(made.tokens)]
            assert made.logprobs == pytest.approx(expected, abs=1e-6)
            assert made.finish == "stop"
    assert {turn: [scripted(turn, seed) for seed in (11, 12)] for turn in turns} == turns
    assert turns[2][0] != turns[2][1]


def test_the_script_calls_two_tools_and_answers():
    said = [get_format("hermes").parse(scripted(turn, seed=5)) for turn in (1, 2, 3)]
    assert [call.name for parsed in said for call in parsed.calls] == ["ZoominSubplot", "Crop"]
    assert said[2].answer is not None
    assert [turn_of([7] * count, 7) for count in (3, 5, 7)] == [1, 2, 3]


def test_a_sampler_that_draws_something_else_is_found_out():
    class Family:
        suppressed_ids, stop_ids = (0,), (9,)
        tokenizer = SimpleNamespace(convert_tokens_to_ids=lambda token: 0)

        def encode_reply(self, text: str) -> list[int]:
            return [3, 9]

        def decode(self, tokens: Any) -> str:
            return ""

    greedy = GenerationRequest([0, 0, 0], [], 4, 0.0, 1)
    sampler = ScriptedSampler([greedy], Family(), torch.device("cpu"))
    with pytest.raises(ValueError, match="its sampling has changed"):
        sampler.step(torch.eye(10)[5:6], 0)


def test_the_manifest_is_valid_and_asks_for_what_was_promised():
    parsed = parse_manifest(manifest(200_000))
    assert check_local(parsed).problems == []
    job = parsed.job("rehearsal").spec
    rl = job.stage("v-toolrl").grpo
    assert (rl.prompts_per_step, rl.num_generations, rl.max_steps) == (1, 2, 2)
    assert (job.agent.max_rounds, job.agent.max_tokens_per_turn, job.model.max_pixels) == (3, 48, 200_000)


def test_the_memory_of_a_phase_is_that_of_all_processes():
    program = "import time; kept = bytearray(200 * 2**20); print(1, flush=True); time.sleep(60)"
    before = memory_gib([Process(), *Process().children(recursive=True)])  # others' servers may still be ending
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        meter = Meter()
        meter.begin("two processes")
        meter.close()
        child.kill()
    assert 0.19 < meter.phases[0].gib - before < 0.5
    assert meter.phases[0].cpu_seconds > 0


def test_phases_follow_each_other_and_become_a_table():
    meter = Meter()
    for name in ("one", "one", "two"):
        meter.begin(name)
    meter.close()
    assert [phase.name for phase in meter.phases] == ["one", "two"]
    lines = table([Phase("one", 10, 15, 3.2), Phase("two", 20, 25, 2.0)]).splitlines()
    assert lines[-2:] == ["| two | 20 | 25 | 2.0 |", "| all | 30 | 40 | 3.2 |"]
