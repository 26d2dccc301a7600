"""From the names of transformers' GroundingDINO to the authors'.

As transformers' `convert_grounding_dino_to_hf.py`, backwards. The authors keep query, key and value as one matrix, and
name the one head of boxes once per decoder layer, and again in the decoder.
"""

import re

import torch

State = dict[str, torch.Tensor]

_SWIN = (
    ("embeddings.patch_embeddings.projection.", "patch_embed.proj."),
    ("embeddings.norm.", "patch_embed.norm."),
    ("encoder.layers.", "layers."),
    ("hidden_states_norms.stage2.", "norm1."),
    ("hidden_states_norms.stage3.", "norm2."),
    ("hidden_states_norms.stage4.", "norm3."),
    ("layernorm_before.", "norm1."),
    ("layernorm_after.", "norm2."),
    ("attention.self.relative_position_bias_table", "attn.relative_position_bias_table"),
    ("attention.self.", "attn.qkv."),
    ("attention.output.dense.", "attn.proj."),
    ("intermediate.dense.", "mlp.fc1."),
    ("output.dense.", "mlp.fc2."),
)
_ENCODER = (
    ("self_attn_layer_norm.", "norm1."),
    ("final_layer_norm.", "norm2."),
    ("layer_norm_before.", "norm1."),
    ("layer_norm_after.", "norm2."),
    ("fc1.", "linear1."),
    ("fc2.", "linear2."),
    ("vision_param", "gamma_v"),
    ("text_param", "gamma_l"),
    ("_vision.", "_v."),
    ("_text.", "_l."),
    ("vision_proj.", "v_proj."),
    ("text_proj.", "l_proj."),
)
_DECODER = (
    ("encoder_attn_text_layer_norm.", "catext_norm."),
    ("encoder_attn_text.", "ca_text."),
    ("encoder_attn_layer_norm.", "norm1."),
    ("encoder_attn.", "cross_attn."),
    ("self_attn_layer_norm.", "norm2."),
    ("final_layer_norm.", "norm3."),
    ("fc1.", "linear1."),
    ("fc2.", "linear2."),
    ("decoder.layer_norm.", "decoder.norm."),
    ("reference_points_head.", "ref_point_head."),
)
_SECTIONS = (
    (r"model\.backbone\.conv_encoder\.model\.", "backbone.0.", _SWIN),
    (r"model\.encoder\.layers\.(\d+)\.deformable_layer\.", r"transformer.encoder.layers.\1.", _ENCODER),
    (r"model\.encoder\.layers\.(\d+)\.text_enhancer_layer\.", r"transformer.encoder.text_layers.\1.", _ENCODER),
    (r"model\.encoder\.layers\.(\d+)\.fusion_layer\.", r"transformer.encoder.fusion_layers.\1.", _ENCODER),
    (r"model\.decoder\.", "transformer.decoder.", _DECODER),
    (r"model\.text_backbone\.", "bert.", ()),
    (r"model\.input_proj_vision\.", "input_proj.", ()),
    (r"model\.text_projection\.", "feat_map.", ()),
    (r"model\.query_position_embeddings\.", "transformer.tgt_embed.", ()),
    (r"model\.encoder_output_bbox_embed\.", "transformer.enc_out_bbox_embed.", ()),
    (r"model\.", "transformer.", ()),
)
_NOT_THEIRS = {f"model.backbone.conv_encoder.model.swin.layernorm.{kind}" for kind in ("weight", "bias")}
"""Of a class that transformers shares; nothing passes through it."""
_PART = re.compile(r"\.(query|key|value)\.(weight|bias)$")


def to_original(saved: State, decoder_layers: int) -> State:
    """`saved`: the tensors of a folder that transformers wrote."""
    renamed = {_rename(name): tensor for name, tensor in saved.items() if name not in _NOT_THEIRS}
    for name in [name for name in renamed if ".query." in name and not name.startswith("bert.")]:
        parts = [renamed.pop(_PART.sub(rf".{part}.\2", name)) for part in ("query", "key", "value")]
        renamed[_whole(name)] = torch.cat(parts)
    head = {name: tensor for name, tensor in renamed.items() if name.startswith("bbox_embed.0.")}
    for layer in range(decoder_layers):
        for name, tensor in head.items():
            own = name.replace(".0.", f".{layer}.", 1)
            renamed[own] = renamed[f"transformer.decoder.{own}"] = tensor
    return renamed


def _rename(name: str) -> str:
    for pattern, prefix, replacements in _SECTIONS:
        found = re.match(pattern, name)
        if found:
            name = found.expand(prefix) + name[found.end() :]
            for old, new in replacements:
                name = name.replace(old, new)
            return name
    return name


def _whole(name: str) -> str:
    """`attn.qkv.query.weight` -> `attn.qkv.weight`; `self_attn.query.weight` -> `self_attn.in_proj_weight`."""
    return _PART.sub(r".\2" if ".attn.qkv." in name else r".in_proj_\2", name)
