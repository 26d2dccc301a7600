"""GroundingDINO with its authors' code (groundingdino-py 0.4.0, https://github.com/IDEA-Research/GroundingDINO).

It runs with transformers 4 only, so that it has an environment of its own. Its configuration files are Python that
would be run; here the architecture is read from the shapes of the tensors instead.
"""

import contextlib
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import torch
from groundingdino.models.GroundingDINO.backbone.backbone import Joiner
from groundingdino.models.GroundingDINO.backbone.position_encoding import build_position_encoding
from groundingdino.models.GroundingDINO.backbone.swin_transformer import SwinTransformer
from groundingdino.models.GroundingDINO.groundingdino import GroundingDINO
from groundingdino.models.GroundingDINO.transformer import build_transformer

from thinkimg.errors import UserError
from thinkimg.tools.backends.neural import weights
from thinkimg.tools.backends.neural.grounding import Preparation
from thinkimg.tools.backends.options import DetectorOptions
from thinkimg.tools.weights.catalogue import DEFAULTS
from thinkimg.tools.weights.locate import locate

DEFAULT_WEIGHTS = DEFAULTS["GroundingDINO", "groundingdino"]
_POINTS = 4  # sampled per head and level, in all of the authors' models
_NOT_NEEDED = re.compile(r"^label_enc\.|^bert\.pooler\.|^bert\.embeddings\.position_ids$|\.relative_position_index$")
"""Tensors of training, of other versions of transformers, and constants: only one of file and model may have them."""
_STAGE = r"backbone\.0\.layers\.(\d+)\."


class GroundingDINOModel:
    """The backend `groundingdino`. Weights are one file in the authors' format, `.pth` or `.safetensors`."""

    preparation = Preparation()

    def __init__(self, options: DetectorOptions) -> None:
        source = options.weights or DEFAULT_WEIGHTS
        path = weights.find_checkpoint(locate(source, options.revision))
        encoder = locate(options.text_encoder, field="options.textEncoder")
        state = weights.read_state(path)
        self.device, self.dtype = weights.choose_device(options.device), weights.choose_dtype(options.dtype)
        with contextlib.redirect_stdout(sys.stderr):  # it prints, and a server's standard output is for its events
            self.model = build(state, path, encoder)
        weights.fill(self.model, state, path, _NOT_NEEDED)
        self.model.to(self.device, self.dtype)
        self.tokenizer = self.model.tokenizer
        chosen = weights.details(options, source, self.device)
        self.details: Mapping[str, str] = {**chosen, "text encoder": options.text_encoder}

    @torch.inference_mode()
    def predict(self, pixels: torch.Tensor, captions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        out = self.model(pixels.to(self.device, self.dtype), captions=captions)
        return out["pred_logits"].float().sigmoid().cpu(), out["pred_boxes"].float().cpu()


def build(state: Mapping[str, torch.Tensor], source: Path, encoder: Path) -> GroundingDINO:
    """The model that these tensors are of, with random weights.

    Args:
        source: the tensors' file, for messages.
        encoder: folder with BERT and its tokenizer.

    Raises:
        UserError: these are not the tensors of a GroundingDINO, or the folder has no BERT.
    """
    try:
        settings = _settings(state)
        backbone = _backbone(state, settings)
    except (KeyError, IndexError, ZeroDivisionError) as error:
        raise UserError(
            f"{source} is not a checkpoint of GroundingDINO ({error} is missing)", "options.weights"
        ) from error
    try:
        model = GroundingDINO(
            backbone,
            build_transformer(settings),
            num_queries=settings.num_queries,
            aux_loss=False,
            iter_update=True,
            query_dim=settings.query_dim,
            num_feature_levels=settings.num_feature_levels,
            nheads=settings.nheads,
            two_stage_type=settings.two_stage_type,
            dec_pred_bbox_embed_share=True,
            two_stage_class_embed_share=False,
            two_stage_bbox_embed_share=False,
            text_encoder_type=str(encoder),
            sub_sentence_present=True,
        )
    except (OSError, ValueError) as error:
        raise UserError(f"{encoder} has no BERT with tokenizer: {error}", "options.textEncoder") from error
    return model.eval()


def _settings(state: Mapping[str, torch.Tensor]) -> SimpleNamespace:
    """What the authors' `GroundingDINO_SwinT_OGC.py` and `_SwinB_cfg.py` say, sizes from the tensors."""
    levels, hidden = state["transformer.level_embed"].shape
    offsets = state["transformer.encoder.layers.0.self_attn.sampling_offsets.weight"].shape[0]
    return SimpleNamespace(
        hidden_dim=hidden,
        dropout=0.0,
        nheads=offsets // (levels * _POINTS * 2),
        num_queries=state["transformer.tgt_embed.weight"].shape[0],
        dim_feedforward=state["transformer.encoder.layers.0.linear1.weight"].shape[0],
        enc_layers=_count(state, r"transformer\.encoder\.layers\.(\d+)\."),
        dec_layers=_count(state, r"transformer\.decoder\.layers\.(\d+)\."),
        num_feature_levels=levels,
        enc_n_points=_POINTS,
        dec_n_points=_POINTS,
        pre_norm=False,
        query_dim=4,
        transformer_activation="relu",
        num_patterns=0,
        two_stage_type="standard",
        embed_init_tgt=True,
        use_text_enhancer=True,
        use_fusion_layer=True,
        use_checkpoint=False,
        use_transformer_ckpt=False,
        use_text_cross_attention=True,
        text_dropout=0.0,
        fusion_dropout=0.0,
        fusion_droppath=0.1,
        position_embedding="sine",
        pe_temperatureH=20,
        pe_temperatureW=20,
    )


def _backbone(state: Mapping[str, torch.Tensor], settings: SimpleNamespace) -> Joiner:
    """The Swin transformer with its position embedding."""
    stages = _count(state, _STAGE)
    projected = sum(
        state[f"input_proj.{level}.0.weight"].shape[-1] == 1 for level in range(settings.num_feature_levels)
    )
    bias = "backbone.0.layers.{}.blocks.0.attn.relative_position_bias_table"
    tables = [state[bias.format(stage)].shape for stage in range(stages)]
    swin = SwinTransformer(
        patch_size=state["backbone.0.patch_embed.proj.weight"].shape[-1],
        embed_dim=state["backbone.0.patch_embed.proj.weight"].shape[0],
        depths=[_count(state, rf"backbone\.0\.layers\.{stage}\.blocks\.(\d+)\.") for stage in range(stages)],
        num_heads=[heads for _, heads in tables],
        window_size=(round(tables[0][0] ** 0.5) + 1) // 2,
        out_indices=tuple(range(stages - projected, stages)),
    )
    joined = Joiner(swin, build_position_encoding(settings))
    joined.num_channels = swin.num_features[stages - projected :]
    return joined


def _count(state: Mapping[str, torch.Tensor], pattern: str) -> int:
    numbers = [int(match[1]) for name in state if (match := re.match(pattern, name))]
    return max(numbers) + 1 if numbers else 0
