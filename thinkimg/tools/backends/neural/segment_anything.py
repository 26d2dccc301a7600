"""SAM with Meta's own package (segment-anything 1.0, https://github.com/facebookresearch/segment-anything).

Which of its models a file holds is read from the shapes of the tensors, so that no option can contradict the file.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image as Pillow
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from segment_anything.utils.transforms import ResizeLongestSide

from thinkimg.errors import UserError
from thinkimg.tools.backends.decoding import decode_prompts
from thinkimg.tools.backends.neural import weights
from thinkimg.tools.backends.options import SegmenterOptions
from thinkimg.tools.backends.segmentation import Embedding, Mask, Prompt
from thinkimg.tools.weights.catalogue import DEFAULTS
from thinkimg.tools.weights.locate import locate

DEFAULT_WEIGHTS = DEFAULTS["SAM", "segment-anything"]
_DECODER_HEADS = 8  # the one number that no tensor tells; all of Meta's models have it


@dataclass(frozen=True)
class Architecture:
    """The numbers from which `Sam` is built; vit_b, vit_l and vit_h differ in the encoder's only."""

    image_size: int
    patch_size: int
    embed_dim: int
    depth: int
    num_heads: int
    mlp_ratio: float
    window_size: int
    global_attention: tuple[int, ...]
    prompt_dim: int
    mask_channels: int
    decoder_depth: int
    decoder_mlp: int
    masks: int
    iou_hidden: int
    iou_depth: int


def read_architecture(state: Mapping[str, torch.Tensor], source: Path) -> Architecture:
    """Raises `UserError` if these are not the tensors of a SAM."""
    try:
        grid = state["image_encoder.pos_embed"].shape[1]
        patch = state["image_encoder.patch_embed.proj.weight"].shape[-1]
        embed_dim = state["image_encoder.pos_embed"].shape[-1]
        depth = _count(state, r"image_encoder\.blocks\.(\d+)\.")
        relative = [state[f"image_encoder.blocks.{block}.attn.rel_pos_h"].shape for block in range(depth)]
        spans = [(shape[0] + 1) // 2 for shape in relative]
        prompt_dim = state["prompt_encoder.no_mask_embed.weight"].shape[-1]
        iou_depth = _count(state, r"mask_decoder\.iou_prediction_head\.layers\.(\d+)\.")
        return Architecture(
            image_size=grid * patch,
            patch_size=patch,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=embed_dim // relative[0][1],
            mlp_ratio=state["image_encoder.blocks.0.mlp.lin1.weight"].shape[0] / embed_dim,
            window_size=min(spans) if min(spans) < grid else 0,
            global_attention=tuple(block for block, span in enumerate(spans) if span == grid),
            prompt_dim=prompt_dim,
            mask_channels=state["prompt_encoder.mask_downscaling.3.weight"].shape[0],
            decoder_depth=_count(state, r"mask_decoder\.transformer\.layers\.(\d+)\."),
            decoder_mlp=state["mask_decoder.transformer.layers.0.mlp.lin1.weight"].shape[0],
            masks=state["mask_decoder.mask_tokens.weight"].shape[0] - 1,
            iou_hidden=state["mask_decoder.iou_prediction_head.layers.0.weight"].shape[0],
            iou_depth=iou_depth,
        )
    except (KeyError, IndexError, ValueError) as error:
        raise UserError(
            f"{source} is not a checkpoint of segment-anything ({error} is missing)", "options.weights"
        ) from error


def _count(state: Mapping[str, torch.Tensor], pattern: str) -> int:
    numbers = [int(match[1]) for name in state if (match := re.match(pattern, name))]
    return max(numbers) + 1 if numbers else 0


def build(architecture: Architecture) -> Sam:
    """The model, with random weights. What `segment_anything.build_sam` does, with the numbers as parameters."""
    a = architecture
    grid = a.image_size // a.patch_size
    return Sam(
        ImageEncoderViT(
            depth=a.depth,
            embed_dim=a.embed_dim,
            img_size=a.image_size,
            mlp_ratio=a.mlp_ratio,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            num_heads=a.num_heads,
            patch_size=a.patch_size,
            qkv_bias=True,
            use_rel_pos=True,
            global_attn_indexes=a.global_attention,
            window_size=a.window_size,
            out_chans=a.prompt_dim,
        ),
        PromptEncoder(
            embed_dim=a.prompt_dim,
            image_embedding_size=(grid, grid),
            input_image_size=(a.image_size, a.image_size),
            mask_in_chans=a.mask_channels,
        ),
        MaskDecoder(
            num_multimask_outputs=a.masks,
            transformer=TwoWayTransformer(
                depth=a.decoder_depth, embedding_dim=a.prompt_dim, mlp_dim=a.decoder_mlp, num_heads=_DECODER_HEADS
            ),
            transformer_dim=a.prompt_dim,
            iou_head_depth=a.iou_depth,
            iou_head_hidden_dim=a.iou_hidden,
        ),
    ).eval()


class SegmentAnything:
    """The backend `segment-anything`. Weights are one file in Meta's format, `.pth` or `.safetensors`."""

    def __init__(self, options: SegmenterOptions) -> None:
        source = options.weights or DEFAULT_WEIGHTS
        path = weights.find_checkpoint(locate(source, options.revision))
        state = weights.read_state(path)
        self.sam = build(read_architecture(state, path))
        weights.fill(self.sam, state, path)
        self.device, self.dtype = weights.choose_device(options.device), weights.choose_dtype(options.dtype)
        self.sam.to(self.device, self.dtype)
        self.details = weights.details(options, source, self.device)
        self._resize = ResizeLongestSide(self.sam.image_encoder.img_size)

    @torch.inference_mode()
    def encode(self, pictures: Sequence[Pillow.Image]) -> list[Embedding]:
        fitted = [self._resize.apply_image(np.asarray(picture)) for picture in pictures]
        with weights.one_machine():
            pixels = [torch.as_tensor(array.copy(), device=self.device).permute(2, 0, 1).float() for array in fitted]
            batch = torch.stack([self.sam.preprocess(each) for each in pixels]).to(self.dtype)
            embedded = self.sam.image_encoder(batch)
        return [
            # A copy: a slice would keep the memory of the whole batch.
            Embedding(each[None].clone(), picture.size, (array.shape[1], array.shape[0]), each.nbytes)
            for each, picture, array in zip(embedded, pictures, fitted, strict=True)
        ]

    @torch.inference_mode()
    def decode(self, embedding: Embedding, prompts: Sequence[Prompt]) -> list[Mask]:
        scale = np.array([new / old for new, old in zip(embedding.fitted, embedding.size, strict=True)], np.float32)
        fitted, size = embedding.fitted[::-1], embedding.size[::-1]

        def low(boxes: np.ndarray | None, points: np.ndarray | None, several: bool) -> tuple[np.ndarray, np.ndarray]:
            shown = None if points is None else self._inside(torch.from_numpy(points * scale))
            framed = None if boxes is None else torch.from_numpy(boxes * np.tile(scale, 2)).to(self.device)
            sparse, dense = self.sam.prompt_encoder(points=shown, boxes=framed, masks=None)
            logits, scores = self.sam.mask_decoder(
                image_embeddings=embedding.features,
                image_pe=self.sam.prompt_encoder.get_dense_pe(),
                sparse_prompt_embeddings=sparse.to(self.dtype),
                dense_prompt_embeddings=dense,
                multimask_output=several,
            )
            return logits.float().cpu().numpy(), scores.float().cpu().numpy()

        def enlarge(logits: np.ndarray) -> np.ndarray:
            whole = self.sam.postprocess_masks(torch.from_numpy(logits)[None, None], fitted, size)
            mask: np.ndarray = (whole[0, 0] > self.sam.mask_threshold).numpy()
            return mask

        with weights.one_machine():
            return decode_prompts(prompts, low, enlarge)

    def _inside(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Points, and labels that say that all of them are on the object."""
        return points.to(self.device), torch.ones(points.shape[:2], dtype=torch.int, device=self.device)
