"""Reading text with RapidOCR (PP-OCR models inside its wheel, onnxruntime on the CPU).

One engine per process, with one cache: OCR, ZoominSubplot and Point read the same picture once.

Settings, chosen for speed: detection at the picture's own size up to 320 pixels (RapidOCR would enlarge it to 736), at
twice its size or 2048 pixels beyond, and once more at half of that, as each size shows strings that the other hides;
each string recognised by itself at its own width (RapidOCR pads batches to 320), no angle classifier, but tall boxes
are read in every direction.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw

from thinkimg.tools.backends.text_reader import CACHE_SIZE, TextReader, kept_pictures
from thinkimg.tools.vision.colors import border_color
from thinkimg.tools.vision.geometry import SMALL, clip
from thinkimg.tools.vision.layout import area_of, shared_area
from thinkimg.tools.vision.text import TextItem

_SMALLEST = 256  # pixels; smaller pictures are laid on a ground of this size
_LARGEST = 2048  # pixels; larger pictures are reduced, smaller ones enlarged, at most twice
_UNCLIP_RATIO = 1.6  # how far the detector widens its boxes (RapidOCR's default)
_STEP = 32  # the detector's; other sizes would be distorted
_TALL = 1.5  # height to width from which a box may hold rotated text


class RapidReader(TextReader):
    """RapidOCR's engine."""

    def __init__(self, threads: int = 1, cache_size: int = CACHE_SIZE) -> None:
        super().__init__(cache_size)
        import cv2
        from rapidocr import RapidOCR

        cv2.setNumThreads(threads)
        self._engine = RapidOCR(
            params={
                "Global.log_level": "error",
                "Global.use_cls": False,
                "Global.text_score": 0.0,
                "Global.max_side_len": 2 * _LARGEST,  # or it would reduce the picture again
                "Det.limit_type": "min",
                "Det.limit_side_len": _STEP,
                "Det.unclip_ratio": _UNCLIP_RATIO,
                "Det.use_dilation": False,  # it makes one box of a label and the value beneath
                "Rec.rec_img_shape": [3, 48, 48],
                "Rec.rec_batch_num": 1,
                "EngineConfig.onnxruntime.intra_op_num_threads": threads,
                "EngineConfig.onnxruntime.inter_op_num_threads": 1,
            }
        )
        self._load_models()

    def _load_models(self) -> None:
        """The engine loads detector and recogniser when it first needs them: now, not during somebody's call."""
        picture = Pillow.new("RGB", (160, 64), "white")
        ImageDraw.Draw(picture).text((20, 16), "Ready 10", fill="black", font_size=28)
        self._recognise(picture)

    def _recognise(self, picture: Pillow.Image) -> tuple[TextItem, ...]:
        longest = max(picture.size)
        if longest <= SMALL:
            return self._at_scale(picture, 1.0)
        scale = min(2.0, _LARGEST / longest)
        return _together(self._at_scale(picture, scale), self._at_scale(picture, scale / 2))

    def _at_scale(self, picture: Pillow.Image, scale: float) -> tuple[TextItem, ...]:
        prepared, (left, top) = _prepare(picture, scale)
        found: Any = self._engine(
            _bgr(prepared), use_det=True, use_cls=False, use_rec=True
        )  # each call sets it for all
        if found.boxes is None or found.txts is None:
            return ()
        items = []
        for corners, text, score in zip(found.boxes, found.txts, found.scores, strict=True):
            x1, y1, x2, y2 = _tighten(*corners.min(axis=0), *corners.max(axis=0))
            if y2 - y1 >= _TALL * (x2 - x1):
                text, score = self._read_turned(prepared, corners, text, float(score))
            box = ((x1 - left) / scale, (y1 - top) / scale, (x2 - left) / scale, (y2 - top) / scale)
            item = TextItem(text, clip(box, picture.size), round(float(score), 4))
            if not _is_blob(item, picture):
                items.append(item)
        return tuple(items)

    def _read_turned(self, picture: Pillow.Image, corners: np.ndarray, text: str, score: float) -> tuple[str, float]:
        """Of a tall box the engine has read the turn against the clock. Labels of a y-axis want the other one, and a
        single digit none."""
        x1, y1 = (max(0, int(value)) for value in corners.min(axis=0))
        x2, y2 = (int(value) + 1 for value in corners.max(axis=0))
        part = picture.crop((x1, y1, min(x2, picture.width), min(y2, picture.height)))
        best = (text, score)
        for turned in (part.transpose(Pillow.Transpose.ROTATE_270), part):
            read: Any = self._engine(_bgr(turned), use_det=False, use_cls=False, use_rec=True)
            if read.txts and float(read.scores[0]) > best[1]:
                best = (read.txts[0], float(read.scores[0]))
        return best


def _bgr(picture: Pillow.Image) -> np.ndarray:
    """As OpenCV has it."""
    return np.asarray(picture)[:, :, ::-1].copy()


def shared_reader(threads: int = 1) -> TextReader:
    """The process's engine."""
    return _reader(threads, kept_pictures())


_reader = lru_cache(maxsize=4)(RapidReader)


def _prepare(picture: Pillow.Image, scale: float) -> tuple[Pillow.Image, tuple[int, int]]:
    """The picture at a scale, on a ground whose size suits the detector; and where on it."""
    if scale != 1:
        size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
        picture = picture.resize(size, Pillow.Resampling.LANCZOS)
    wide, high = (max(_SMALLEST, -(-side // _STEP) * _STEP) for side in picture.size)
    if (wide, high) == picture.size:
        return picture, (0, 0)
    place = (wide - picture.width) // 2, (high - picture.height) // 2
    ground = Pillow.new("RGB", (wide, high), border_color(picture))
    ground.paste(picture, place)
    return ground, place


_SURE = 0.9


def _together(large: Sequence[TextItem], small: Sequence[TextItem]) -> tuple[TextItem, ...]:
    """What was read in an enlarged picture, with what only the smaller one showed: strings where nothing else was read
    with confidence, and strings of which only pieces were."""
    kept = list(large)
    for item in small:
        if item.confidence < _SURE:
            continue
        beneath = [other for other in kept if _covered(other, item) > 0.3 or _covered(item, other) > 0.3]
        pieces = all(_covered(other, item) > 0.7 for other in beneath)
        said = sum(len(other.text) for other in beneath if other.confidence >= _SURE)
        if not beneath or (pieces and len(item.text) > said):
            kept = [other for other in kept if other not in beneath] + [item]
    return tuple(kept)


def _covered(item: TextItem, by: TextItem) -> float:
    """The share of `item`'s box that the other's covers."""
    return shared_area(item.box, by.box) / max(1e-9, area_of(item.box))


def _is_blob(item: TextItem, picture: Pillow.Image) -> bool:
    """A filled disc or square (a marker, a legend key) that was taken for one letter."""
    x1, y1, x2, y2 = item.box
    if len(item.text) > 1 or not 0.6 < (x2 - x1) / max(y2 - y1, 1) < 1.7:
        return False
    inside = np.asarray(picture.crop((round(x1), round(y1), round(x2), round(y2))), np.int16)
    middle = np.median(inside.reshape(-1, 3), axis=0)
    corners = np.array([picture.getpixel((round(x), round(y))) for x, y in _around(item.box, picture.size)])
    solid = float((np.abs(inside - middle).max(axis=2) < 40).mean()) > 0.65
    return solid and bool((np.abs(corners - middle).max(axis=1) > 60).all())


def _around(box: tuple[float, float, float, float], size: tuple[int, int]) -> list[tuple[float, float]]:
    """The corners of the box, moved outwards by a third of its sides."""
    x1, y1, x2, y2 = box
    dx, dy = (x2 - x1) / 3, (y2 - y1) / 3
    xs, ys = (max(0.0, x1 - dx), min(size[0] - 1, x2 + dx)), (max(0.0, y1 - dy), min(size[1] - 1, y2 + dy))
    return [(x, y) for x in xs for y in ys]


def _tighten(x1: float, y1: float, x2: float, y2: float) -> tuple[float, float, float, float]:
    """Undo the detector's margin, which makes boxes of neighbouring rows overlap.

    It has moved the sides of a w x h box outwards by d = ratio * w * h / (2 (w + h)); this finds that d.
    """
    width, height = x2 - x1, y2 - y1
    low, high = 0.0, min(width, height) / 2
    for _ in range(20):
        d = (low + high) / 2
        w, h = width - 2 * d, height - 2 * d
        low, high = (d, high) if _UNCLIP_RATIO * w * h > 2 * d * (w + h) else (low, d)
    return x1 + low, y1 + low, x2 - low, y2 - low
