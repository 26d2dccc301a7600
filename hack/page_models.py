"""Small networks for the pages of the tools that own weights: of the real classes, trained for minutes on drawn scenes.

They show the form of a result, not the quality of released weights. `save_models` writes them as users have theirs.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image as Pillow
from PIL import ImageDraw
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch.nn import functional
from torchvision.ops import generalized_box_iou
from transformers import (
    BertConfig,
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    Dinov2Config,
    DPTImageProcessor,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    SamConfig,
    SamImageProcessor,
    SamMaskDecoderConfig,
    SamModel,
    SamProcessor,
    SamPromptEncoderConfig,
    SamVisionConfig,
    SwinConfig,
)

WIDTH, HEIGHT = 384, 256
COLORS = {"red": "#d0342c", "blue": "#2b6cb0", "green": "#2f855a", "yellow": "#d69e2e"}
SHAPES = ("ball", "box")
MARKS = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103, ".": 1012, "?": 1029}
"""Where BERT has them: transformers' GroundingDINO knows the ends of sentences by these numbers."""
WORDS = [f"[unused{number}]" for number in range(1040)]
for _word, _number in MARKS.items():
    WORDS[_number] = _word
WORDS[200 : 200 + len(COLORS) + len(SHAPES)] = [*COLORS, *SHAPES]


@dataclass(frozen=True)
class Thing:
    """Something on the floor; `box` in pixels, `mask` bool (HEIGHT, WIDTH), `near` 0 to 1."""

    name: str
    box: tuple[float, float, float, float]
    mask: np.ndarray
    near: float


@dataclass(frozen=True)
class Scene:
    picture: Pillow.Image
    things: list[Thing]
    near: np.ndarray


def scene(rng: random.Random) -> Scene:
    """Two or three balls and boxes on a floor, the nearer ones lower and larger."""
    picture = Pillow.new("RGB", (WIDTH, HEIGHT), "#e8eef4")
    pen = ImageDraw.Draw(picture)
    horizon = HEIGHT * 0.35
    near = np.zeros((HEIGHT, WIDTH), np.float32)
    for row in range(int(horizon), HEIGHT):
        share = (row - horizon) / (HEIGHT - horizon)
        near[row] = share
        shade = round(205 - 60 * share)
        pen.line((0, row, WIDTH, row), fill=(shade, shade - 12, shade - 30))
    count = rng.choice((2, 3, 3))
    places = sorted(rng.uniform(0.25, 1) for _ in range(count))
    columns = rng.sample(range(count), count)
    things = []
    for share, column in zip(places, columns, strict=True):
        base, size = horizon + share * (HEIGHT - horizon) * 0.95, 30 + 75 * share
        x = WIDTH * (column + 0.5) / count + rng.uniform(-12, 12)
        color, shape = rng.choice(list(COLORS)), rng.choice(SHAPES)
        box = (x - size / 2, base - size, x + size / 2, base)
        blank = Pillow.new("1", picture.size)
        for canvas, fill in ((pen, COLORS[color]), (ImageDraw.Draw(blank), 1)):
            (canvas.ellipse if shape == "ball" else canvas.rectangle)(box, fill=fill)
        mask = np.asarray(blank).copy()
        near[mask] = share
        for other in things:  # what stands in front covers
            other.mask[mask] = False
        things.append(Thing(f"{color} {shape}", box, mask, share))
    return Scene(picture, things, near)


def scenes(seed: int) -> Iterator[Scene]:
    rng = random.Random(seed)
    while True:
        yield scene(rng)


def _steps(model: torch.nn.Module, count: int, rate: float) -> Iterator[int]:
    """Backward has been called when the next step is asked for."""
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, count, pct_start=0.1)
    for step in range(count):
        optimizer.zero_grad()
        yield step
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()


# ---- SAM ------------------------------------------------------------------------------------------------------------


def train_sam(folder: Path, steps: int = 1500, batch: int = 4) -> float:
    """Gives the loss of the last steps."""
    side, dim = 256, 64
    config = SamConfig(
        vision_config=SamVisionConfig(
            hidden_size=96, output_channels=dim, num_hidden_layers=3, num_attention_heads=3, image_size=side,
            patch_size=16, mlp_dim=192, window_size=0, global_attn_indexes=[0, 1, 2], num_pos_feats=dim // 2,
        ),
        prompt_encoder_config=SamPromptEncoderConfig(
            hidden_size=dim, image_size=side, patch_size=16, mask_input_channels=16
        ),
        mask_decoder_config=SamMaskDecoderConfig(hidden_size=dim, mlp_dim=128, iou_head_hidden_dim=64),
    )  # fmt: skip
    model = SamModel(config)
    processor = SamImageProcessor(size={"longest_edge": side}, pad_size={"height": side, "width": side})
    source, losses = scenes(1), []
    for _ in _steps(model, steps, 2e-3):
        shown = [next(source) for _ in range(batch)]
        inputs = processor(images=[each.picture for each in shown], return_tensors="pt")
        things = [random.choice(each.things) for each in shown]
        wanted = torch.stack([_low(thing.mask, side) for thing in things])
        scale = side / WIDTH
        with_box = random.random() < 0.5
        if with_box:
            prompts = {"input_boxes": torch.tensor([[thing.box] for thing in things]) * scale}
        else:
            prompts = {"input_points": torch.tensor([[[_inside(thing.mask)]] for thing in things]) * scale}
        out = model(pixel_values=inputs["pixel_values"], multimask_output=not with_box, **prompts)
        logits = out.pred_masks[:, 0]  # (batch, masks, 64, 64)
        targets = wanted[:, None].expand_as(logits)
        per_mask = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean((2, 3))
        overlap = ((logits > 0) & (targets > 0.5)).sum((2, 3)) / ((logits > 0) | (targets > 0.5)).sum((2, 3)).clamp(
            min=1
        )
        loss = per_mask.min(dim=1).values.mean() + per_mask.mean() * 0.2
        loss = loss + 0.1 * functional.mse_loss(out.iou_scores[:, 0], overlap.float())
        loss.backward()
        losses.append(loss.item())
    model.save_pretrained(folder)
    SamProcessor(processor).save_pretrained(folder)
    return float(np.mean(losses[-50:]))


def _low(mask: np.ndarray, side: int) -> torch.Tensor:
    """The mask as the decoder gives it: a quarter of the network's side, padding below."""
    scaled = Pillow.fromarray(mask).convert("L").resize((side // 4, round(side // 4 * HEIGHT / WIDTH)))
    target = torch.zeros(side // 4, side // 4)
    target[: scaled.height] = torch.from_numpy(np.asarray(scaled, np.float32) / 255)
    return target


def _inside(mask: np.ndarray) -> tuple[float, float]:
    ys, xs = np.nonzero(mask)
    number = random.randrange(len(xs))
    return float(xs[number]), float(ys[number])


# ---- GroundingDINO --------------------------------------------------------------------------------------------------


def save_tokenizer(folder: Path) -> Tokenizer:
    folder.mkdir(parents=True, exist_ok=True)
    ids = {word: number for number, word in enumerate(WORDS)}
    fast = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    fast.normalizer = normalizers.BertNormalizer(lowercase=True)
    fast.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    fast.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    fast.save(str(folder / "tokenizer.json"))
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 512}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return fast


def train_detector(folder: Path, steps: int = 4000, batch: int = 4) -> float:
    """Gives the loss of the last steps."""
    tokenizer = save_tokenizer(folder)
    config = GroundingDinoConfig(
        backbone_config=SwinConfig(
            embed_dim=24, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8], window_size=4, drop_path_rate=0.0,
            out_features=["stage2", "stage3", "stage4"],
        ),
        text_config=BertConfig(
            vocab_size=len(WORDS), hidden_size=48, num_hidden_layers=2, num_attention_heads=2, intermediate_size=96,
            max_position_embeddings=256,
        ),
        num_queries=20, d_model=64, encoder_layers=2, decoder_layers=2, encoder_ffn_dim=128, decoder_ffn_dim=128,
        encoder_attention_heads=4, decoder_attention_heads=4, dropout=0.0, fusion_droppath=0.0, fusion_dropout=0.0,
    )  # fmt: skip
    model = GroundingDinoForObjectDetection(config)
    processor = GroundingDinoImageProcessor(size={"shortest_edge": 128, "longest_edge": 192})
    source, losses = scenes(2), []
    for _ in _steps(model, steps, 5e-4):
        shown = [next(source) for _ in range(batch)]
        phrases = [_asked(each) for each in shown]
        pixels = processor(images=[each.picture for each in shown], return_tensors="pt")["pixel_values"]
        encoded = tokenizer.encode_batch([". ".join(asked) + "." for asked in phrases])
        longest = max(len(each.ids) for each in encoded)
        ids = torch.tensor([each.ids + [0] * (longest - len(each.ids)) for each in encoded])
        out = model(pixel_values=pixels, input_ids=ids, attention_mask=(ids > 0).long())
        loss = sum(
            _detection_loss(out.logits[row], out.pred_boxes[row], shown[row], encoded[row].ids, phrases[row])
            + _detection_loss(
                out.encoder_logits[row], out.encoder_pred_boxes[row], shown[row], encoded[row].ids, phrases[row]
            )
            for row in range(batch)
        )
        loss.backward()
        losses.append(loss.item() / batch)
        if len(losses) % 250 == 0:
            print(f"  step {len(losses)}: loss {np.mean(losses[-100:]):.3f}", flush=True)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return float(np.mean(losses[-50:]))


def _asked(shown: Scene) -> list[str]:
    """One or two of the things that are there, sometimes one that is not."""
    names = sorted({thing.name for thing in shown.things})
    asked = random.sample(names, min(len(names), random.choice((1, 2))))
    if random.random() < 0.3:
        asked.append(f"{random.choice(list(COLORS))} {random.choice(SHAPES)}")
    return list(dict.fromkeys(asked))


def _detection_loss(
    logits: torch.Tensor, boxes: torch.Tensor, shown: Scene, ids: list[int], phrases: list[str]
) -> torch.Tensor:
    """DETR's: matching, focal loss on the tokens of the matched phrase, L1 and GIoU on boxes."""
    logits = logits[:, : len(ids)].clamp(-20, 20)
    starts = [1]
    for phrase in phrases:
        starts.append(starts[-1] + len(phrase.split()) + 1)  # a full stop behind each
    things = [thing for thing in shown.things if thing.name in phrases]
    targets = torch.zeros_like(logits)
    cost_of_boxes = torch.zeros(())
    if things:
        truth = torch.tensor([_relative(thing.box) for thing in things])
        maps = torch.zeros(len(things), len(ids))
        for row, thing in enumerate(things):
            start = starts[phrases.index(thing.name)]
            maps[row, start : start + 2] = 1
        with torch.no_grad():
            scores = (logits.sigmoid() @ maps.T) / 2
            cost = (
                5 * torch.cdist(boxes, truth, p=1) - 2 * scores - 2 * generalized_box_iou(_edges(boxes), _edges(truth))
            )
            rows, columns = _matched(cost)
        targets[rows] = maps[columns]
        matched = generalized_box_iou(_edges(boxes[rows]), _edges(truth[columns])).diag()
        cost_of_boxes = 5 * (boxes[rows] - truth[columns]).abs().sum(1).mean() + 2 * (1 - matched).mean()
    chances = logits.sigmoid()
    focal = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    weight = torch.where(targets > 0, 0.5 * (1 - chances) ** 2, 0.5 * chances**2)
    return 2 * (weight * focal).sum() / max(1, 2 * len(things)) + cost_of_boxes


def _matched(cost: torch.Tensor) -> tuple[list[int], list[int]]:
    """Rows and columns of the cheapest pairs, one after another; few things are told apart easily."""
    left, rows, columns = cost.clone(), [], []
    for _ in range(cost.shape[1]):
        row, column = divmod(int(left.argmin()), cost.shape[1])
        rows.append(row)
        columns.append(column)
        left[row], left[:, column] = torch.inf, torch.inf
    return rows, columns


def _relative(box: tuple[float, float, float, float]) -> list[float]:
    x1, y1, x2, y2 = box
    return [(x1 + x2) / 2 / WIDTH, (y1 + y2) / 2 / HEIGHT, (x2 - x1) / WIDTH, (y2 - y1) / HEIGHT]


def _edges(boxes: torch.Tensor) -> torch.Tensor:
    x, y, w, h = boxes.unbind(-1)
    return torch.stack((x - w / 2, y - h / 2, x + w / 2, y + h / 2), -1)


# ---- depth ----------------------------------------------------------------------------------------------------------


def train_depth(folder: Path, steps: int = 500, batch: int = 4) -> float:
    """Gives the loss of the last steps."""
    backbone = Dinov2Config(
        hidden_size=64, num_hidden_layers=4, num_attention_heads=4, mlp_ratio=2, image_size=168, patch_size=14,
        out_features=["stage1", "stage2", "stage3", "stage4"], reshape_hidden_states=False,
    )  # fmt: skip
    config = DepthAnythingConfig(
        backbone_config=backbone, patch_size=14, reassemble_hidden_size=64, neck_hidden_sizes=[16, 32, 48, 64],
        fusion_hidden_size=32, head_hidden_size=16,
    )  # fmt: skip
    model = DepthAnythingForDepthEstimation(config)
    processor = DPTImageProcessor(
        size={"height": 168, "width": 168}, keep_aspect_ratio=True, ensure_multiple_of=14, do_pad=False
    )
    source, losses = scenes(3), []
    for _ in _steps(model, steps, 1e-3):
        shown = [next(source) for _ in range(batch)]
        pixels = processor(images=[each.picture for each in shown], return_tensors="pt")["pixel_values"]
        depth = model(pixel_values=pixels).predicted_depth
        truth = torch.from_numpy(np.stack([each.near for each in shown]))[:, None]
        wanted = functional.interpolate(truth, depth.shape[-2:], mode="bilinear")[:, 0]
        loss = (depth - wanted).abs().mean()
        loss.backward()
        losses.append(loss.item())
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return float(np.mean(losses[-50:]))


def save_models(root: Path) -> None:
    """Train what is not there yet: `sam`, `grounding-dino` and `depth` below `root`."""
    for name, train in (("depth", train_depth), ("sam", train_sam), ("grounding-dino", train_detector)):
        if not (root / name / "config.json").exists():
            torch.manual_seed(0)
            random.seed(0)
            print(f"training {name} …", flush=True)
            print(f"  loss {train(root / name):.4f}", flush=True)
