"""One tiny model per family: the real classes of transformers, random weights, and the chat template of the family."""

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
import trl
from tokenizers import AddedToken
from transformers import (
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen3_5Config,
    Qwen3_5ForConditionalGeneration,
    Qwen3_5MoeConfig,
    Qwen3_5MoeForConditionalGeneration,
    Qwen3VLMoeConfig,
    Qwen3VLMoeForConditionalGeneration,
)
from transformers.models.got_ocr2 import GotOcr2ImageProcessor
from transformers.models.internvl.video_processing_internvl import InternVLVideoProcessor
from transformers.models.llava_onevision.video_processing_llava_onevision import LlavaOnevisionVideoProcessor
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

from tests.support.models.tiny_world import picture
from thinkimg.image import Image
from thinkimg.models import tiny
from thinkimg.models.chat import Family, TokenModel
from thinkimg.models.families import family_of
from thinkimg.models.image_features import ImageFeatures
from thinkimg.models.pretrained import LoadedModel
from thinkimg.models.transformers_generator import TransformersGenerator

GRPO = ("internvl", "qwen2_5_vl", "qwen2_vl", "qwen3_5", "qwen3_5_moe", "qwen3_vl", "qwen3_vl_moe")
ALL = (*GRPO, "llava_onevision")
WORDS = ["what", "is", "the", "value", "of", "bar", "user", "assistant", "system", "tool", "answer", "see", "red"]

# As the conversion scripts of transformers write them into the models' repositories.
INTERNVL_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n'}}{% if message['content'] is string %}"
    "{{ message['content'] }}{% else %}{% for content in message['content'] %}{% if content['type'] == 'image' %}"
    "{{ '<IMG_CONTEXT>\n' }}{% elif content['type'] == 'video' %}{{ '<video>\n' }}{% elif content['type'] == 'text' %}"
    "{{ content['text'] }}{% endif %}{% endfor %}{% endif %}{{'<|im_end|>\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{'<|im_start|>assistant\n' }}{% endif %}"
)
ONEVISION_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + ' '}}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ '\n' + content['text'] }}"
    "{% endfor %}{{'<|im_end|>'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


class Built(NamedTuple):
    model: Any
    processor: Any
    family: Family
    features: ImageFeatures

    @property
    def generator(self) -> TransformersGenerator:
        return TransformersGenerator(self.model, self.family, self.features)

    @property
    def loaded(self) -> LoadedModel:
        chat = TokenModel(self.family, self.generator)
        return LoadedModel(self.model, self.processor, self.family, self.features, chat)

    def save(self, folder: Path) -> None:
        tiny.save(folder, self.model, self.processor)
        self.model.name_or_path = str(folder)


def build(name: str, seed: int = 0) -> Built:
    """A new model of the family, and the rest."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _MODELS[name]()
    processor = processor_of(name)
    family = family_of(model.config.model_type, processor)
    assert model.config.model_type == name
    return Built(model, processor, family, ImageFeatures(processor.image_processor))


@cache
def processor_of(name: str) -> Any:
    return _PROCESSORS[name]()


def _tokenizer(*added: str, **roles: str) -> Any:
    made = tiny.build_tokenizer(WORDS)
    made.add_tokens([AddedToken(token, special=True) for token in added], special_tokens=True)
    for role in roles:
        vars(made).pop(role, None)  # `image_token` is Qwen's
    made._set_model_specific_special_tokens(special_tokens=roles)  # such as `start_image_token`; saved with it
    return made


def _with_template(processor: Any, template: str) -> Any:
    processor.chat_template = processor.tokenizer.chat_template = template
    return processor


def _trl_template(name: str) -> str:
    return (Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja").read_text()


def _text(name: str) -> dict[str, Any]:
    tokenizer = processor_of(name).tokenizer
    return {
        "vocab_size": (len(tokenizer) + 31) // 32 * 32,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "initializer_range": 0.06,
        "tie_word_embeddings": True,
        "eos_token_id": tokenizer.convert_tokens_to_ids("<|im_end|>"),
        "pad_token_id": tokenizer.convert_tokens_to_ids("<|endoftext|>"),
        "bos_token_id": None,
    }


# ---- Qwen -----------------------------------------------------------------------------------------------------------


def _qwen_images() -> dict[str, Any]:
    size = {"shortest_edge": 48**2, "longest_edge": 96**2}
    options = {"patch_size": 8, "merge_size": 2, "temporal_patch_size": 2}
    return {
        "image_processor": Qwen2VLImageProcessor(size=size, **options),
        "video_processor": Qwen2VLVideoProcessor(**options),
    }


def _qwen2_processor() -> Any:
    made = Qwen2VLProcessor(tokenizer=tiny.build_tokenizer(WORDS), **_qwen_images())
    return _with_template(made, _trl_template("qwen2_5_vl"))  # the two have one template


def _qwen2_5_processor() -> Any:
    made = Qwen2_5_VLProcessor(tokenizer=tiny.build_tokenizer(WORDS), **_qwen_images())
    return _with_template(made, _trl_template("qwen2_5_vl"))


def _qwen3_processor() -> Any:
    return _with_template(tiny.build_processor(tiny.build_tokenizer(WORDS)), _trl_template("qwen3_vl"))


def _qwen_ids(name: str) -> dict[str, Any]:
    names = {
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    }
    return {key: processor_of(name).tokenizer.convert_tokens_to_ids(token) for key, token in names.items()}


_MROPE = {"rope_type": "default", "mrope_section": [6, 5, 5], "rope_theta": 1000.0}


def _qwen2_model() -> Any:
    vision = {"depth": 2, "embed_dim": 64, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 2, "patch_size": 8}
    config = Qwen2VLConfig(
        text_config=_text("qwen2_vl") | {"rope_parameters": _MROPE},
        vision_config=vision | {"spatial_merge_size": 2, "temporal_patch_size": 2},
        tie_word_embeddings=True,
        **_qwen_ids("qwen2_vl"),
    )
    return Qwen2VLForConditionalGeneration(config)


def _qwen2_5_model() -> Any:
    vision = {"depth": 2, "hidden_size": 64, "out_hidden_size": 64, "intermediate_size": 128, "num_heads": 2}
    vision |= {"patch_size": 8, "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 32}
    config = Qwen2_5_VLConfig(
        text_config=_text("qwen2_5_vl") | {"rope_parameters": _MROPE},
        vision_config=vision | {"fullatt_block_indexes": [1]},
        tie_word_embeddings=True,
        **_qwen_ids("qwen2_5_vl"),
    )
    return Qwen2_5_VLForConditionalGeneration(config)


def _qwen3_model() -> Any:
    return tiny.build_model(processor_of("qwen3_vl").tokenizer, 0)


def _qwen3_5_processor() -> Any:
    """Without the thoughts of earlier turns left out, as what was sampled stays."""
    return _with_template(tiny.build_processor(tiny.build_tokenizer(WORDS)), _trl_template("qwen3_5_think_training"))


def _qwen3_vision() -> dict[str, Any]:
    vision = {"depth": 2, "hidden_size": 64, "intermediate_size": 128, "num_heads": 2, "out_hidden_size": 64}
    return vision | {"patch_size": tiny.PATCH, "spatial_merge_size": 2, "num_position_embeddings": 64}


_EXPERTS = {"moe_intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2}


def _qwen3_moe_model() -> Any:
    rope = {"rope_type": "default", "mrope_section": [6, 5, 5], "mrope_interleaved": True, "rope_theta": 1000.0}
    config = Qwen3VLMoeConfig(
        text_config=_text("qwen3_vl_moe") | _EXPERTS | {"rope_parameters": rope},
        vision_config=_qwen3_vision() | {"deepstack_visual_indexes": [0]},
        tie_word_embeddings=True,
        **_qwen_ids("qwen3_vl_moe"),
    )
    return Qwen3VLMoeForConditionalGeneration(config)


def _qwen3_5_text(name: str) -> dict[str, Any]:
    """A layer with linear attention, one with full attention."""
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "mrope_interleaved": True, "rope_theta": 1000.0}
    linear = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16}
    return _text(name) | linear | {
        "linear_value_head_dim": 16,
        "head_dim": 32,
        "layer_types": ["linear_attention", "full_attention"],
        "rope_parameters": rope | {"partial_rotary_factor": 0.25},
    }  # fmt: skip


def _qwen3_5_model() -> Any:
    config = Qwen3_5Config(
        text_config=_qwen3_5_text("qwen3_5"),
        vision_config=_qwen3_vision(),
        tie_word_embeddings=True,
        **_qwen_ids("qwen3_5"),
    )
    return Qwen3_5ForConditionalGeneration(config)


def _qwen3_5_moe_model() -> Any:
    config = Qwen3_5MoeConfig(
        text_config=_qwen3_5_text("qwen3_5_moe") | _EXPERTS | {"shared_expert_intermediate_size": 32},
        vision_config=_qwen3_vision(),
        tie_word_embeddings=True,
        **_qwen_ids("qwen3_5_moe"),
    )
    return Qwen3_5MoeForConditionalGeneration(config)


# ---- tiles ----------------------------------------------------------------------------------------------------------


def _internvl_processor() -> Any:
    tokenizer = _tokenizer(
        "<img>", "</img>", "<IMG_CONTEXT>", "<video>",
        start_image_token="<img>", end_image_token="</img>", context_image_token="<IMG_CONTEXT>", video_token="<video>",
    )  # fmt: skip
    made = InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(size={"height": 32, "width": 32}, min_patches=1, max_patches=4),
        tokenizer=tokenizer,
        video_processor=InternVLVideoProcessor(size={"height": 32, "width": 32}),
        image_seq_length=4,
    )
    return _with_template(made, INTERNVL_TEMPLATE)


def _internvl_model() -> Any:
    vision = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
    config = InternVLConfig(
        text_config=_text("internvl") | {"model_type": "qwen2"},
        vision_config=vision | {"image_size": [32, 32], "patch_size": [8, 8]},
        image_token_id=processor_of("internvl").tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
        downsample_ratio=0.5,
        tie_word_embeddings=True,
    )
    return InternVLForConditionalGeneration(config)


_PINPOINTS = [[32, 32], [32, 64], [64, 32], [64, 64], [32, 96], [96, 32]]


def _onevision_processor() -> Any:
    made = LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessor(size={"height": 32, "width": 32}, image_grid_pinpoints=_PINPOINTS),
        tokenizer=_tokenizer("<image>", "<video>", image_token="<image>", video_token="<video>"),
        video_processor=LlavaOnevisionVideoProcessor(size={"height": 32, "width": 32}),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
    )
    return _with_template(made, ONEVISION_TEMPLATE)


def _onevision_model() -> Any:
    tokenizer = processor_of("llava_onevision").tokenizer
    vision = {"model_type": "siglip_vision_model", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    config = LlavaOnevisionConfig(
        text_config=_text("llava_onevision") | {"model_type": "qwen2"},
        vision_config=vision | {"num_attention_heads": 2, "image_size": 32, "patch_size": 8, "vision_use_head": False},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=_PINPOINTS,
        tie_word_embeddings=True,
    )
    return LlavaOnevisionForConditionalGeneration(config)


_PROCESSORS = {
    "internvl": _internvl_processor,
    "llava_onevision": _onevision_processor,
    "qwen2_5_vl": _qwen2_5_processor,
    "qwen2_vl": _qwen2_processor,
    "qwen3_5": _qwen3_5_processor,
    "qwen3_5_moe": _qwen3_5_processor,
    "qwen3_vl": _qwen3_processor,
    "qwen3_vl_moe": _qwen3_processor,
}
_MODELS = {
    "internvl": _internvl_model,
    "llava_onevision": _onevision_model,
    "qwen2_5_vl": _qwen2_5_model,
    "qwen2_vl": _qwen2_model,
    "qwen3_5": _qwen3_5_model,
    "qwen3_5_moe": _qwen3_5_moe_model,
    "qwen3_vl": _qwen3_model,
    "qwen3_vl_moe": _qwen3_moe_model,
}


def from_scratch(made: Built, tokens: list[int], images: list[Image]) -> torch.Tensor:
    """Log-probability of every token but the first, by one plain forward pass of one sample, nothing padded."""
    ids = torch.tensor([tokens])
    inputs = {"input_ids": ids, **made.family.model_inputs(ids), **(made.features(images) if images else {})}
    with torch.no_grad():
        logits = made.model.eval()(**inputs).logits[0, :-1].float()
    logits[:, list(made.family.suppressed_ids)] = -torch.inf
    return torch.log_softmax(logits, -1).gather(1, ids[0, 1:, None])[:, 0]


@cache
def built(name: str) -> Built:
    return build(name)


def picture_of(number: int) -> Image:
    return picture(number, 40 + 50 * (number % 4), 40 + 70 * (number % 3))
