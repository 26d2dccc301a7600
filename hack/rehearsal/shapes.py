"""Configurations of public checkpoints, and small ones of the same kind.

They follow `config.json`, `preprocessor_config.json` and `generation_config.json` of Qwen/Qwen2-VL-2B-Instruct and of
Qwen/Qwen3-VL-2B-Instruct on the Hugging Face hub, from which they were written down without a network: compare them
with the files where the hub can be reached. The number of parameters is checked before anything is written
(`Shape.parameters`).
"""

from dataclasses import dataclass, field
from typing import Any

IDS = {
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
    "image_token_id": 151655,
    "video_token_id": 151656,
}
SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
"""The first has id 151643, and so on."""
WORDS_OF_QWEN3 = (
    "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>",
    "<|file_sep|>", "<tool_response>", "</tool_response>", "<think>", "</think>",
)  # fmt: skip
"""Tokens of their own from id 151657 on, which are no special ones: text may hold them."""

_GENERATION = {"bos_token_id": 151643, "pad_token_id": 151643, "do_sample": True, "eos_token_id": [151645, 151643]}


@dataclass(frozen=True)
class Shape:
    """Attributes:
    config, images, videos, generation: contents of the checkpoint's configuration files.
    added: tokens behind the special ones.
    template: TRL's copy of the chat template.
    renamed: prefixes of transformers' names of weights, and what the checkpoint on the hub has in their place.
    parameters: how many there are, tied ones once; None where nobody else says so.
    pixels: of a picture, as it is shown in the rehearsal.
    """

    name: str
    config: dict[str, Any]
    images: dict[str, Any]
    generation: dict[str, Any]
    template: str
    videos: dict[str, Any] = field(default_factory=dict)
    added: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()
    parameters: int | None = None
    pixels: int = 200_000

    @property
    def text(self) -> dict[str, Any]:
        """The part of the configuration that is the language model's."""
        text: dict[str, Any] = self.config.get("text_config", self.config)
        return text

    def small(self) -> "Shape":
        """The same kind of model with two layers of each sort and the whole vocabulary, and small pictures."""
        text = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
        text |= {"num_key_value_heads": 2}
        vision: dict[str, Any] = {"depth": 2, "num_heads": 2}
        if self.config["model_type"] == "qwen2_vl":
            text |= {"max_window_layers": 2, "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}}
            vision |= {"embed_dim": 64, "hidden_size": 64}
        else:
            rope = {"mrope_interleaved": True, "mrope_section": [4, 2, 2], "rope_type": "default"}
            text |= {"head_dim": 16, "rope_scaling": rope}
            vision |= {"hidden_size": 64, "intermediate_size": 128, "out_hidden_size": 64}
            vision |= {"deepstack_visual_indexes": [0]}
        config = self.config | {"vision_config": self.config["vision_config"] | vision}
        config |= {"text_config": self.text | text} if "text_config" in config else text
        return Shape(
            f"{self.name}-small", config, self.images, self.generation, self.template, self.videos, self.added,
            self.renamed, pixels=12_544,
        )  # fmt: skip


QWEN2_VL = Shape(
    name="qwen2-vl",
    config={
        "architectures": ["Qwen2VLForConditionalGeneration"], "model_type": "qwen2_vl", "torch_dtype": "bfloat16",
        "transformers_version": "4.41.2",
        "attention_dropout": 0.0, "bos_token_id": 151643, "eos_token_id": 151645, "vision_token_id": 151654, **IDS,
        "hidden_act": "silu", "hidden_size": 1536, "initializer_range": 0.02, "intermediate_size": 8960,
        "max_position_embeddings": 32768, "max_window_layers": 28, "num_attention_heads": 12, "num_hidden_layers": 28,
        "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 32768,
        "tie_word_embeddings": True, "use_cache": True, "use_sliding_window": False,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}, "vocab_size": 151936,
        "vision_config": {
            "depth": 32, "embed_dim": 1280, "mlp_ratio": 4, "num_heads": 16, "in_chans": 3, "hidden_size": 1536,
            "patch_size": 14, "spatial_merge_size": 2, "spatial_patch_size": 14, "temporal_patch_size": 2,
        },
    },
    images={
        "min_pixels": 3136, "max_pixels": 12845056, "patch_size": 14, "temporal_patch_size": 2, "merge_size": 2,
        "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711],
        "image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2VLProcessor",
    },
    generation=_GENERATION | {"temperature": 0.01, "top_p": 0.001, "top_k": 1},
    template="qwen2_5_vl.jinja",  # the words of 2.5 are those of 2
    renamed=(("model.language_model.", "model."), ("model.visual.", "visual.")),
    parameters=2_208_985_600,
)  # fmt: skip

QWEN3_VL = Shape(
    name="qwen3-vl",
    config={
        "architectures": ["Qwen3VLForConditionalGeneration"], "model_type": "qwen3_vl", "tie_word_embeddings": True,
        "transformers_version": "4.57.0.dev0", **IDS,
        "text_config": {
            "model_type": "qwen3_vl_text", "dtype": "bfloat16", "attention_bias": False, "attention_dropout": 0.0,
            "bos_token_id": 151643, "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu", "hidden_size": 2048,
            "initializer_range": 0.02, "intermediate_size": 6144, "max_position_embeddings": 262144,
            "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8, "rms_norm_eps": 1e-06,
            "rope_scaling": {"mrope_interleaved": True, "mrope_section": [24, 20, 20], "rope_type": "default"},
            "rope_theta": 5000000, "tie_word_embeddings": True, "use_cache": True, "vocab_size": 151936,
        },
        "vision_config": {
            "model_type": "qwen3_vl", "deepstack_visual_indexes": [5, 11, 17], "depth": 24,
            "hidden_act": "gelu_pytorch_tanh", "hidden_size": 1024, "in_channels": 3, "initializer_range": 0.02,
            "intermediate_size": 4096, "num_heads": 16, "num_position_embeddings": 2304, "out_hidden_size": 2048,
            "patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2,
        },
    },
    images={
        "size": {"longest_edge": 16777216, "shortest_edge": 65536}, "patch_size": 16, "temporal_patch_size": 2,
        "merge_size": 2, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
        "image_processor_type": "Qwen2VLImageProcessorFast", "processor_class": "Qwen3VLProcessor",
    },
    videos={
        "size": {"longest_edge": 25165824, "shortest_edge": 4096}, "patch_size": 16, "temporal_patch_size": 2,
        "merge_size": 2, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
        "video_processor_type": "Qwen3VLVideoProcessor", "processor_class": "Qwen3VLProcessor",
    },
    generation=_GENERATION | {"temperature": 0.7, "top_p": 0.8, "top_k": 20},
    template="qwen3_vl.jinja",
    added=WORDS_OF_QWEN3,
    parameters=2_127_532_032,
)  # fmt: skip

SHAPES = {shape.name: shape for shape in (QWEN2_VL, QWEN3_VL)}
