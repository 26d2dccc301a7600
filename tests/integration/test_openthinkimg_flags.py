"""The training command of OpenThinkIMG's README, with its paths filled in, on a tiny model and tiny data."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from generate_openthinkimg_flags import TARGET, page

from tests.support.serving.sample_servers import spec
from tests.support.training.scripted_agent import WORDS, picture
from thinkimg.api.v1alpha1 import parse_manifest
from thinkimg.errors import UserError
from thinkimg.models import tiny
from thinkimg.openthinkimg.train_flags import FLAGS, prepare
from thinkimg.serving import Supervisor

README = """
torchrun --nproc_per_node=${nproc_per_node} \\
    --nnodes="1" \\
    --node_rank="0" \\
    --master_addr="127.0.0.1" \\
    --master_port=${master_port} \\
    src/open_r1/tool_grpo.py --use_vllm True \\
    --output_dir ${output_dir} \\
    --model_name_or_path ${model_path} \\
    --dataset_name ${data_path} \\
    --max_prompt_length 16000 \\
    --max_completion_length 2048 \\
    --temperature 1.0 \\
    --seed 42 \\
    --learning_rate 1e-6 \\
    --num_generations 8 \\
    --lr_scheduler_type "constant" \\
    --vllm_gpu_memory_utilization 0.8 \\
    --deepspeed ${DS_CONFIG} \\
    --per_device_train_batch_size 2 \\
    --gradient_accumulation_steps 12 \\
    --logging_steps 1 \\
    --bf16 true \\
    --report_to wandb \\
    --gradient_checkpointing true \\
    --attn_implementation flash_attention_2 \\
    --max_pixels 200000 \\
    --num_train_epochs 1 \\
    --run_name $RUN_NAME \\
    --save_steps 100 \\
    --save_only_model true \\
    --controller_addr http://SH-IDCA1404-10-140-54-15:20001 \\
    --use_tool true
"""
CONFIGS = Path(__file__).parent.parent.parent / "thinkimg" / "training" / "configs"


def command(**filled: str) -> list[str]:
    """The README's words, with its variables, the lab's address and the script's name filled in."""
    text = README.replace("http://SH-IDCA1404-10-140-54-15:20001", filled["controller"])
    text = text.replace("src/open_r1/tool_grpo.py", "-m thinkimg.training.grpo")
    text = re.sub(r"\$\{?(\w+)\}?", lambda found: filled[found.group(1)], text.replace("\\\n", " "))
    _, *words = shlex.split(text)
    return [sys.executable, "-m", "torch.distributed.run", *words]


def tiny_data(folder: Path, count: int) -> Path:
    (folder / "pictures").mkdir(parents=True)
    records = []
    for number in range(count):
        (folder / "pictures" / f"{number}.png").write_bytes(picture(number).data)
        records.append({"image_path": f"pictures/{number}.png", "question": f"what is bar {number}", "solution": "7"})
    (folder / "rl.json").write_text(json.dumps(records))
    return folder / "rl.json"


ANSWERS = [
    f'{{"thought": "", "actions": [{{"name": "Terminate", "arguments": {{"ans": "{number}"}}}}]}}' for number in (6, 7)
]


def tiny_model(folder: Path) -> Path:
    """A model that guesses: each of its tokens is a right answer, a wrong one or the end of the turn. The answers of an
    untrained one would all be wrong, and a training in which nothing is learned is refused."""
    tokenizer = tiny.build_tokenizer(WORDS, ANSWERS)
    model = tiny.build_model(tokenizer, 0)
    with torch.no_grad():
        hidden = model.model(**tokenizer("what is the value of bar 7", return_tensors="pt")).last_hidden_state[0]
        likely = hidden.mean(0) / hidden.mean(0).norm()
        model.lm_head.weight[tokenizer.convert_tokens_to_ids([*ANSWERS, tokenizer.eos_token])] = 10 * likely
    model.save_pretrained(folder / "model")
    tiny.build_processor(tokenizer).save_pretrained(folder / "model")
    return folder / "model"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_readmes_command_runs(tmp_path: Path) -> None:
    model, data, output = tiny_model(tmp_path), tiny_data(tmp_path / "data", 3), tmp_path / "out"
    with Supervisor([spec("tools", "echo", "OCR", "Crop")], tmp_path / "servers", ready_seconds=300) as tools:
        words = command(
            nproc_per_node="1", master_port="29511", output_dir=str(output), model_path=str(model),
            data_path=str(data), DS_CONFIG=str(CONFIGS / "deepspeed-zero1.json"), RUN_NAME="Chart-Tool_RL",
            controller=tools.endpoints[0],
        )  # fmt: skip
        # A guess is a few tokens long, and the longest of all would take an hour here.
        words = ["32" if word == "2048" else word for word in words]
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu", "WANDB_MODE": "offline"}
        environment |= {"WANDB_DIR": str(tmp_path), "WANDB_SILENT": "true"}
        done = subprocess.run(words, capture_output=True, text=True, timeout=1500, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    stage = output / "stages" / "v-toolrl"
    lines = [json.loads(line) for line in (stage / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1]
    assert lines[0]["masked"] == 0, "all rollouts are trained on"
    assert 0 < lines[0]["reward"] < 1
    assert lines[0]["grad_norm"] > 0
    assert (stage / "model" / "model.safetensors").exists()
    assert "--max_prompt_length has no effect" in done.stderr
    assert list(tmp_path.glob("**/wandb/offline-run-*")), "the curves went where --report_to says"
    job = parse_manifest((output / "toolrljob.yaml").read_text()).job()
    grpo = job.spec.stage("v-toolrl").grpo
    assert grpo is not None
    assert (job.name, job.spec.model.max_pixels, grpo.beta, grpo.max_rounds) == ("chart-tool-rl", 200000, 0.04, 6)
    assert (grpo.num_generations, grpo.prompts_per_step, grpo.max_steps) == (8, 3, 1)


def test_the_readmes_command_is_read(tmp_path: Path) -> None:
    filled = dict.fromkeys(re.findall(r"\$\{?(\w+)\}?", README), "1") | {
        "controller": "http://x:1", "output_dir": str(tmp_path / "out"), "model_path": "Qwen/Qwen2-VL-2B-Instruct",
        "data_path": str(tiny_data(tmp_path / "data", 3)), "DS_CONFIG": str(CONFIGS / "deepspeed-zero3.json"),
    }  # fmt: skip
    words = command(**filled)
    file, _ = prepare(words[words.index("thinkimg.training.grpo") + 1 :], {})
    grpo = yaml.safe_load(file.read_text())["spec"]["stages"][0]["grpo"]
    assert (grpo["maxTokensPerTurn"], grpo["args"]["bf16"], grpo["temperature"]) == (2048, True, 1.0)


def manifest(tmp_path: Path, *words: str, **environment: str) -> dict:
    data = tmp_path / "data" / "rl.json"
    if not data.exists():
        tiny_data(tmp_path / "data", 10)
    given = ["--output_dir", str(tmp_path / "out"), "--model_name_or_path", "Qwen/Qwen2-VL-2B-Instruct"]
    file, _ = prepare([*given, "--dataset_name", str(data), *words], environment)
    return yaml.safe_load(file.read_text())["spec"]


def test_flags_become_fields(tmp_path: Path) -> None:
    words = "--query_key query --reward_funcs accuracy format --use_tool true --controller_addr http://x:1 --beta=0.1"
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.png").write_bytes(picture(1).data)
    record = {"image_path": "a.png", "query": "?", "label": "1"}
    (tmp_path / "data" / "rl.json").write_text(json.dumps([record] * 10))
    more = "--per_device_train_batch_size 4 --gradient_accumulation_steps 4 --num_train_epochs 2 --top_p 0.9"
    spec = manifest(tmp_path, *words.split(), *more.split(), WORLD_SIZE="4", LOCAL_WORLD_SIZE="2", RANK="0")
    grpo = spec["stages"][0]["grpo"]
    assert spec["model"]["uri"] == "hf://Qwen/Qwen2-VL-2B-Instruct"
    assert spec["data"]["train"]["uri"] == "pvc://data/rl.json?question=query"
    assert [reward["name"] for reward in grpo["rewards"]] == ["accuracy", "format"]
    assert (spec["stages"][0]["nodes"], spec["stages"][0]["procsPerNode"]) == (2, 2)
    assert (grpo["promptsPerStep"], grpo["maxSteps"], grpo["beta"], grpo["toolUse"]) == (8, 3, 0.1, "Enabled")
    assert grpo["args"] == {"gradient_accumulation_steps": 4, "top_p": 0.9}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--use_tool perhaps", "--use_tool: true or false"),
        (
            "--num_generations 8 --per_device_train_batch_size 2",
            "--per_device_train_batch_size: .*would straddle",
        ),
        ("--use_tool true", "--controller_addr: it is missing"),
        ("--learning_rat 1", "learning_rat.*is not an argument of GRPOConfig"),
        ("stray", "'stray'|one value is needed"),
    ],
)
def test_a_wrong_flag_is_refused_by_name(tmp_path: Path, words: str, said: str) -> None:
    with pytest.raises((UserError, ValueError), match=said):
        manifest(tmp_path, *words.split())


def test_the_table_of_flags_is_up_to_date() -> None:
    assert TARGET.read_text(encoding="utf-8") == page(), "run hack/generate_openthinkimg_flags.py"
    assert len({flag.name for flag in FLAGS}) == len(FLAGS)
