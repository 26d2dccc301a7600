"""Version v1alpha1 of ThinkIMG's resources: VisionTool and ToolRLJob, and the file that declares them."""

from .errors import ManifestError, Problem
from .local import LocalCheck, check_local
from .manifest import Manifest, load_manifest, parse_manifest
from .toolrljob import ToolRLJob
from .visiontool import VisionTool

__all__ = [
    "LocalCheck",
    "Manifest",
    "ManifestError",
    "Problem",
    "ToolRLJob",
    "VisionTool",
    "check_local",
    "load_manifest",
    "parse_manifest",
]
