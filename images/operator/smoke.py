"""Runs in the image (`make images-test`): the operator renders a VisionTool; it has no imaging or training library."""

import importlib.util
import os

import thinkimg_operator.main  # the whole program imports
from thinkimg_operator.settings import Settings
from thinkimg_operator.visiontool.render import render

from thinkimg.api import VisionTool

tool = VisionTool.model_validate({"metadata": {"name": "ocr", "namespace": "default"}, "spec": {"tool": "OCR"}})
kinds = [child["kind"] for child in render(tool, Settings())]
assert "Deployment" in kinds, kinds
assert thinkimg_operator.main.main
for absent in ("numpy", "PIL", "torch", "cv2"):
    assert importlib.util.find_spec(absent) is None, absent
assert os.getuid() != 0
print(f"ok: {', '.join(kinds)}")
