"""Models for the checks: random weights in a folder, read back by the product's own loader."""

from pathlib import Path
from typing import Any

import torch

from tests.support.engine.talkers import WORDS, save_tiny
from thinkimg.models import tiny
from thinkimg.models.loading import Loading
from thinkimg.models.pretrained import LoadedModel, load_model
from thinkimg.models.reference import Reader

SIZES = ("tiny", "small", "2b")
"""A million parameters; 0.4 billion of a Qwen3-VL; the exact shape of Qwen2-VL-2B-Instruct."""


def write_model(folder: Path, size: str) -> None:
    if size == "tiny":
        save_tiny(folder)
    elif size == "small":
        _write_small(folder)
    else:
        from rehearsal.checkpoint import write_checkpoint
        from rehearsal.shapes import QWEN2_VL

        write_checkpoint(QWEN2_VL, folder)


def load(folder: Path, **how: Any) -> LoadedModel:
    """As a stage loads it: on the GPU if there is one, in the type that is the default there. `how`: see `Loading`."""
    loaded = load_model(Reader("").read(str(folder)), Loading(**how))
    loaded.model.name_or_path = str(folder)
    return loaded


def written_and_loaded(folder: Path, size: str, **how: Any) -> LoadedModel:
    write_model(folder, size)
    return load(folder, **how)


def _write_small(folder: Path) -> None:
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    tokenizer = tiny.build_tokenizer(WORDS)
    token = tokenizer.convert_tokens_to_ids
    text = {
        "vocab_size": 4096, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 24,
        "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 8192,
        "rope_parameters": {"rope_type": "default", "mrope_section": [24, 20, 20], "mrope_interleaved": True,
                            "rope_theta": 1e6},
        "tie_word_embeddings": True, "eos_token_id": token("<|im_end|>"), "pad_token_id": token("<|endoftext|>"),
        "bos_token_id": None,
    }  # fmt: skip
    vision = {
        "depth": 8, "hidden_size": 512, "intermediate_size": 1024, "num_heads": 8, "out_hidden_size": 1024,
        "patch_size": tiny.PATCH, "spatial_merge_size": 2, "temporal_patch_size": 2, "num_position_embeddings": 64,
        "deepstack_visual_indexes": [2, 4, 6],
    }  # fmt: skip
    config = Qwen3VLConfig(
        text_config=text, vision_config=vision, image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"), vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"), tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    model = Qwen3VLForConditionalGeneration(config).to(torch.bfloat16)
    tiny.save(folder, model, tiny.build_processor(tokenizer))
