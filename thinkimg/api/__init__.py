"""ThinkIMG's resources, in the version that the rest of the program speaks: `v1alpha1`. Everything outside of this
package imports from here, never from a version, so that a next version is a change of this file."""

from thinkimg.api.v1alpha1 import (
    LocalCheck,
    Manifest,
    ManifestError,
    Problem,
    ToolRLJob,
    VisionTool,
    check_local,
    load_manifest,
    parse_manifest,
)
from thinkimg.api.v1alpha1.controls import UNUSED_SCOPE, Control, ControlKind, ControlScope
from thinkimg.api.v1alpha1.data import Data, Dataset, QuestionSet
from thinkimg.api.v1alpha1.explain import explain
from thinkimg.api.v1alpha1.failurepolicy import FailurePolicy, FailureRule
from thinkimg.api.v1alpha1.jobstatus import (
    CheckpointStatus,
    ChildNames,
    ImageStatus,
    Metric,
    Pinned,
    Progress,
    Result,
    StageStatus,
    ToolRLJobStatus,
)
from thinkimg.api.v1alpha1.meta import API_VERSION, GROUP
from thinkimg.api.v1alpha1.pods import EnvVar, SecretRef
from thinkimg.api.v1alpha1.resource import bytes_of, path_of, suggestion
from thinkimg.api.v1alpha1.rewards import Judge, Reward, Scorer
from thinkimg.api.v1alpha1.stages import (
    BASE,
    GRPO,
    SFT,
    Evaluate,
    Filters,
    ImportanceCorrection,
    Lora,
    Planner,
    Stage,
    Synthesize,
)
from thinkimg.api.v1alpha1.stored import read_stored, unknown_fields, with_unknown
from thinkimg.api.v1alpha1.toolrljob import ToolRLJobSpec
from thinkimg.api.v1alpha1.uris import scheme_of
from thinkimg.api.v1alpha1.visiontool import CUSTOM, Batching, VisionToolSpec, VisionToolStatus
from thinkimg.api.v1alpha1.yamlsource import read_value, read_yaml

__all__ = [
    "API_VERSION",
    "BASE",
    "CUSTOM",
    "GROUP",
    "GRPO",
    "SFT",
    "UNUSED_SCOPE",
    "Batching",
    "CheckpointStatus",
    "ChildNames",
    "Control",
    "ControlKind",
    "ControlScope",
    "Data",
    "Dataset",
    "EnvVar",
    "Evaluate",
    "FailurePolicy",
    "FailureRule",
    "Filters",
    "ImageStatus",
    "ImportanceCorrection",
    "Judge",
    "LocalCheck",
    "Lora",
    "Manifest",
    "ManifestError",
    "Metric",
    "Pinned",
    "Planner",
    "Problem",
    "Progress",
    "QuestionSet",
    "Result",
    "Reward",
    "Scorer",
    "SecretRef",
    "Stage",
    "StageStatus",
    "Synthesize",
    "ToolRLJob",
    "ToolRLJobSpec",
    "ToolRLJobStatus",
    "VisionTool",
    "VisionToolSpec",
    "VisionToolStatus",
    "bytes_of",
    "check_local",
    "explain",
    "load_manifest",
    "parse_manifest",
    "path_of",
    "read_stored",
    "read_value",
    "read_yaml",
    "scheme_of",
    "suggestion",
    "unknown_fields",
    "with_unknown",
]
