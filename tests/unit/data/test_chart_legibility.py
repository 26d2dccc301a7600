"""The point of the experiment, with a real OCR model: texts can be read at full size and cannot at the model's size."""

import os
from typing import Any

import numpy as np
import pytest
from PIL import Image

from thinkimg.data.chart import Chart
from thinkimg.data.chart_drawing import draw_chart
from thinkimg.data.charts import make_charts

rapidocr = pytest.importorskip("rapidocr")
MODEL_INPUT = 48  # pixels, the side of the picture that the tiny model sees


@pytest.fixture(scope="module")
def ocr() -> Any:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    return rapidocr.RapidOCR(
        params={
            "Global.use_cls": False,
            "Global.log_level": "error",
            "Det.limit_type": "min",
            "Det.limit_side_len": 256,
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        }
    )


def words(ocr: Any, image: Image.Image) -> set[str]:
    result = ocr(np.ascontiguousarray(np.asarray(image)[:, :, ::-1]))
    return {word for line in result.txts or () for word in line.split()}


def panel_crops(chart: Chart) -> list[Image.Image]:
    """Each panel as a zoom tool would return it: the whole picture where there is one panel, else twice as large."""
    picture = draw_chart(chart).image
    if len(chart.panels) == 1:
        return [picture]
    boxes = [tuple(round(percent * picture.width / 100) for percent in panel.box) for panel in chart.panels]
    crops = [picture.crop(box) for box in boxes]  # type: ignore[arg-type]
    return [crop.resize((crop.width * 2, crop.height * 2), Image.Resampling.BICUBIC) for crop in crops]


@pytest.mark.slow
@pytest.mark.parametrize("level", [1, 3])
def test_ocr_reads_the_values_of_a_panel(ocr: Any, level: int) -> None:
    found = total = 0
    for chart in make_charts("validation", 9, 0, level):
        for panel, crop in zip(chart.panels, panel_crops(chart), strict=True):
            read = words(ocr, crop)
            total += len(panel.items)
            found += sum({item.label, str(item.value)} <= read for item in panel.items)
    assert found / total >= 0.95


def test_ocr_reads_next_to_nothing_at_the_models_size(ocr: Any) -> None:
    found = total = 0
    for chart in make_charts("validation", 9, 0):
        small = draw_chart(chart).image.resize((MODEL_INPUT, MODEL_INPUT), Image.Resampling.BICUBIC)
        read = words(ocr, small.resize((256, 256), Image.Resampling.BICUBIC))
        values = [str(item.value) for panel in chart.panels for item in panel.items]
        total += len(values)
        found += sum(value in read for value in values)
    assert found / total <= 0.05
