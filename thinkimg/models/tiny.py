"""A Qwen3-VL of under a million parameters, made from scratch: the embedded default and the model of the tests.

It has the real architecture, processor and tokenizer classes, so whatever works on it works on Qwen3-VL. Sizes are
those at which the whole method can be learned on two CPU cores: pictures become 48x48 pixels, which are 9 tokens, and
phrases that a caller expects often (the scaffold of a call) are single tokens.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2VLImageProcessor, Qwen3VLConfig, Qwen3VLForConditionalGeneration
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor
from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor

PATCH = 8
IMAGE_SIDE = 48
SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for block in message.content %}"
    "{% if block.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ block.text }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_tokenizer(words: Iterable[str], phrases: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """Byte-level BPE in which each of `words` is one token, each digit is one token, and each of `phrases` (scaffolds
    of any length) is one token. Any other text is still representable."""
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(r"[A-Za-z]+|\d|\s|[^A-Za-z\d\s]"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=4096, min_frequency=2, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    # Twice each: a pair that occurs twice is merged, so every word ends as one token.
    tokenizer.train_from_iterator(sorted(set(words)) * 2, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=list(SPECIAL[1:]),
        model_max_length=8192,
    )
    fast.add_tokens([AddedToken(phrase, normalized=False, special=False) for phrase in dict.fromkeys(phrases)])
    fast.image_token, fast.video_token = "<|image_pad|>", "<|video_pad|>"
    fast.vision_start_token, fast.vision_end_token = "<|vision_start|>", "<|vision_end|>"
    fast.chat_template = CHAT_TEMPLATE
    return fast


def build_processor(tokenizer: PreTrainedTokenizerFast) -> Qwen3VLProcessor:
    size = {"shortest_edge": IMAGE_SIDE**2, "longest_edge": IMAGE_SIDE**2}
    images = Qwen2VLImageProcessor(patch_size=PATCH, merge_size=2, temporal_patch_size=2, size=size)
    videos = Qwen3VLVideoProcessor(patch_size=PATCH, merge_size=2, temporal_patch_size=2)
    return Qwen3VLProcessor(
        image_processor=images, tokenizer=tokenizer, video_processor=videos, chat_template=CHAT_TEMPLATE
    )


def build_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> Any:
    """About 0.8 million random parameters, float32. The global random state is left as it was."""
    token = tokenizer.convert_tokens_to_ids
    ends = {"eos_token_id": token("<|im_end|>"), "pad_token_id": token("<|endoftext|>"), "bos_token_id": None}
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": (len(tokenizer) + 31) // 32 * 32,
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "head_dim": 32,
            "max_position_embeddings": 8192,
            "rope_parameters": {
                "rope_type": "default",
                "mrope_section": [6, 5, 5],
                "mrope_interleaved": True,
                "rope_theta": 1000.0,
            },
            "initializer_range": 0.04,
            "tie_word_embeddings": True,
            **ends,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 2,
            "out_hidden_size": 128,
            "patch_size": PATCH,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0],
            "initializer_range": 0.04,
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = ends["eos_token_id"]
    model.generation_config.pad_token_id = ends["pad_token_id"]
    return model


def save(folder: Path, model: Any, processor: Qwen3VLProcessor) -> None:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
