"""Models of the real classes with random weights, a few hundred kilobytes each, written as their projects write them.

Random weights need help to say anything: those of a fresh GroundingDINO give every box the same score, and those of a
fresh SAM an all but empty mask. `spread` draws them anew, wide enough.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from segment_anything.modeling import Sam
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    Dinov2Config,
    DPTImageProcessor,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    Sam2Config,
    Sam2HieraDetConfig,
    Sam2ImageProcessor,
    Sam2MaskDecoderConfig,
    Sam2Model,
    Sam2Processor,
    Sam2PromptEncoderConfig,
    Sam2VisionConfig,
    SamConfig,
    SamImageProcessor,
    SamMaskDecoderConfig,
    SamModel,
    SamProcessor,
    SamPromptEncoderConfig,
    SamVisionConfig,
    SwinConfig,
)

from thinkimg.tools.backends.neural.segment_anything import Architecture, build

SAM_SIZE = 64
WORDS = ["a", "bar", "blue", "red", "cat", "legend", "axis", "title", "line", "the", "slice", "of", "pie", "##s"]
MARKS = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103, ",": 1010, ".": 1012, "?": 1029}
"""Where BERT has them: transformers' GroundingDINO knows the ends of sentences by these numbers."""


def _vocabulary() -> list[str]:
    words = [f"[unused{number}]" for number in range(1040)]
    for word, number in MARKS.items():
        words[number] = word
    words[200 : 200 + len(WORDS)] = WORDS
    return words


VOCABULARY = _vocabulary()

TINY_SAM = Architecture(
    image_size=SAM_SIZE,
    patch_size=8,
    embed_dim=32,
    depth=2,
    num_heads=2,
    mlp_ratio=2.0,
    window_size=3,
    global_attention=(1,),
    prompt_dim=32,
    mask_channels=16,
    decoder_depth=2,
    decoder_mlp=64,
    masks=3,
    iou_hidden=32,
    iou_depth=3,
)


def spread(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Every parameter drawn anew: matrices keep the size of what passes through, vectors are near where they were."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(noise * (1.5 / parameter[0].numel() ** 0.5))
            else:
                parameter.add_(noise * 0.2)
    return model.eval()


# ---- SAM ------------------------------------------------------------------------------------------------------------


def meta_sam(seed: int = 0) -> Sam:
    """The tiny SAM of segment-anything."""
    return spread(build(TINY_SAM), seed)


def save_transformers_sam(folder: Path, sam: Sam) -> Path:
    """The same weights as a model of transformers."""
    a = TINY_SAM
    config = SamConfig(
        vision_config=SamVisionConfig(
            hidden_size=a.embed_dim,
            output_channels=a.prompt_dim,
            num_hidden_layers=a.depth,
            num_attention_heads=a.num_heads,
            image_size=a.image_size,
            patch_size=a.patch_size,
            mlp_dim=int(a.embed_dim * a.mlp_ratio),
            window_size=a.window_size,
            global_attn_indexes=list(a.global_attention),
            num_pos_feats=a.prompt_dim // 2,
        ),
        prompt_encoder_config=SamPromptEncoderConfig(
            hidden_size=a.prompt_dim,
            image_size=a.image_size,
            patch_size=a.patch_size,
            mask_input_channels=a.mask_channels,
        ),
        mask_decoder_config=SamMaskDecoderConfig(
            hidden_size=a.prompt_dim,
            mlp_dim=a.decoder_mlp,
            num_hidden_layers=a.decoder_depth,
            iou_head_hidden_dim=a.iou_hidden,
            iou_head_depth=a.iou_depth,
        ),
    )
    model = SamModel(config)
    state = sam_to_transformers(sam.state_dict())
    missing, unknown = model.load_state_dict(state, strict=False)
    assert unknown == []
    assert missing in ([], ["prompt_encoder.shared_embedding.positional_embedding"])  # tied
    model.tie_weights()
    model.eval().save_pretrained(folder)
    side = {"height": a.image_size, "width": a.image_size}
    processor = SamImageProcessor(size={"longest_edge": a.image_size}, pad_size=side)
    SamProcessor(processor).save_pretrained(folder)
    return folder


def sam_to_transformers(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Names as in transformers' `convert_sam_to_hf.py`."""
    renames = [
        ("iou_prediction_head.layers.0", "iou_prediction_head.proj_in"),
        ("iou_prediction_head.layers.1", "iou_prediction_head.layers.0"),
        ("iou_prediction_head.layers.2", "iou_prediction_head.proj_out"),
        ("mask_decoder.output_upscaling.0", "mask_decoder.upscale_conv1"),
        ("mask_decoder.output_upscaling.1", "mask_decoder.upscale_layer_norm"),
        ("mask_decoder.output_upscaling.3", "mask_decoder.upscale_conv2"),
        ("mask_downscaling.0", "mask_embed.conv1"),
        ("mask_downscaling.1", "mask_embed.layer_norm1"),
        ("mask_downscaling.3", "mask_embed.conv2"),
        ("mask_downscaling.4", "mask_embed.layer_norm2"),
        ("mask_downscaling.6", "mask_embed.conv3"),
        ("prompt_encoder.point_embeddings", "prompt_encoder.point_embed"),
        (
            "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
            "prompt_encoder.shared_embedding.positional_embedding",
        ),
        ("image_encoder", "vision_encoder"),
        ("neck.0", "neck.conv1"),
        ("neck.1", "neck.layer_norm1"),
        ("neck.2", "neck.conv2"),
        ("neck.3", "neck.layer_norm2"),
        ("patch_embed.proj", "patch_embed.projection"),
        (".norm", ".layer_norm"),
        ("blocks", "layers"),
    ]
    renamed = {}
    for name, tensor in state.items():
        for old, new in renames:
            name = name.replace(old, new)
        if ".output_hypernetworks_mlps." in name:
            head, layer, kind = name.rsplit(".", 2)
            head = head.removesuffix(".layers")
            name = f"{head}.{ {'0': 'proj_in', '1': 'layers.0', '2': 'proj_out'}[layer] }.{kind}".replace(" ", "")
        renamed[name] = tensor
    shared = renamed["prompt_encoder.shared_embedding.positional_embedding"]
    return renamed | {"shared_image_embedding.positional_embedding": shared}


def save_sam2(folder: Path, seed: int = 0) -> Path:
    """A tiny SAM 2."""
    backbone = Sam2HieraDetConfig(
        hidden_size=16,
        num_attention_heads=1,
        image_size=[SAM_SIZE, SAM_SIZE],
        blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[16, 32, 64, 128],
        num_attention_heads_per_stage=[1, 2, 4, 8],
        window_size_per_stage=[4, 2, 4, 2],
        global_attention_blocks=[3],  # never the first of a stage
        window_positional_embedding_background_size=[4, 4],
    )
    config = Sam2Config(
        vision_config=Sam2VisionConfig(
            backbone_config=backbone,
            backbone_channel_list=[128, 64, 32, 16],
            backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
            fpn_hidden_size=32,
        ),
        prompt_encoder_config=Sam2PromptEncoderConfig(hidden_size=32, image_size=SAM_SIZE, patch_size=16),
        mask_decoder_config=Sam2MaskDecoderConfig(
            hidden_size=32, mlp_dim=64, num_hidden_layers=2, num_attention_heads=4, iou_head_hidden_dim=32
        ),
    )
    spread(Sam2Model(config), seed).save_pretrained(folder)
    Sam2Processor(Sam2ImageProcessor(size={"height": SAM_SIZE, "width": SAM_SIZE})).save_pretrained(folder)
    return folder


# ---- GroundingDINO --------------------------------------------------------------------------------------------------


def save_state(state: dict[str, torch.Tensor], path: Path) -> None:
    """As `.safetensors` or `.pth`."""
    whole = {name: tensor.clone() for name, tensor in state.items()}
    save_file(whole, path) if path.suffix == ".safetensors" else torch.save({"model": whole}, path)


def save_bert(folder: Path) -> Path:
    """A tiny BERT with its tokenizer: what `text_encoder` names."""
    folder.mkdir(parents=True, exist_ok=True)
    BertModel(bert_config()).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def bert_config() -> BertConfig:
    return BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=256,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )


def save_tokenizer(folder: Path) -> None:
    """The files of a BERT tokenizer, readable by transformers 4 and 5."""
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    ids = {word: number for number, word in enumerate(VOCABULARY)}
    fast = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    fast.normalizer = normalizers.BertNormalizer(lowercase=True)
    fast.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    fast.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    fast.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": BertTokenizer.__name__, "do_lower_case": True, "model_max_length": 512}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def grounding_config() -> GroundingDinoConfig:
    swin = SwinConfig(
        embed_dim=16,
        depths=[1, 1, 1, 1],
        num_heads=[1, 2, 4, 8],
        window_size=4,
        drop_path_rate=0.0,
        out_features=["stage2", "stage3", "stage4"],
    )
    return GroundingDinoConfig(
        backbone_config=swin,
        text_config=bert_config(),
        num_queries=12,
        d_model=256,  # the only one that groundingdino-py has sine positions for
        encoder_layers=2,
        decoder_layers=2,
        encoder_ffn_dim=128,
        decoder_ffn_dim=128,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        dropout=0.0,
        fusion_droppath=0.0,
    )


def save_grounding_dino(folder: Path, seed: int = 0, sizes: tuple[int, int] = (64, 96)) -> Path:
    """A tiny GroundingDINO of transformers; pictures come to the first of `sizes`, at most the second."""
    model = GroundingDinoForObjectDetection(grounding_config())
    spread(model, seed)
    with torch.no_grad():  # else the products of long vectors are so large that every score is 0 or 1
        model.model.decoder.layer_norm.weight.mul_(0.1)
        model.model.enc_output_norm.weight.mul_(0.1)
    model.save_pretrained(folder)
    save_tokenizer(folder)
    GroundingDinoImageProcessor(size={"shortest_edge": sizes[0], "longest_edge": sizes[1]}).save_pretrained(folder)
    return folder


# ---- depth ----------------------------------------------------------------------------------------------------------


def save_depth(folder: Path, seed: int = 0) -> Path:
    """A tiny Depth Anything."""
    backbone = Dinov2Config(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        mlp_ratio=2,
        image_size=168,
        patch_size=14,
        out_features=["stage1", "stage2", "stage3", "stage4"],
        reshape_hidden_states=False,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        patch_size=14,
        reassemble_hidden_size=32,
        neck_hidden_sizes=[8, 16, 32, 32],
        fusion_hidden_size=16,
        head_hidden_size=8,
    )
    spread(DepthAnythingForDepthEstimation(config), seed).save_pretrained(folder)
    DPTImageProcessor(
        size={"height": 168, "width": 168}, keep_aspect_ratio=True, ensure_multiple_of=14, do_pad=False
    ).save_pretrained(folder)
    return folder
