"""Which variables of its own environment a supervisor hands to the servers that it starts: those that say how and where
to run, those that a server's configuration names, and those that the user lists. A secret is none of the first kind."""

import os
from collections.abc import Collection, Mapping

from pydantic import BaseModel, ValidationError

from thinkimg.api.server_contract import Variable
from thinkimg.errors import ModelError, UserError
from thinkimg.tools.backends.options import EndpointOptions, WeightsOptions
from thinkimg.tools.registry import find_tool

PASS_VARIABLE = "THINKIMG_PASS_ENVIRONMENT"
"""Further names for every server, a comma between two; `NAME_*` for all that begin so."""
_NAMES = frozenset(
    {
        "PATH", "HOME", "USER", "LOGNAME", "SHELL", "PWD", "HOSTNAME", "TMPDIR", "TMP", "TEMP", "TZ", "LANG",
        "LANGUAGE", "TERM", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "LD_LIBRARY_PATH", "LD_PRELOAD",
        "VIRTUAL_ENV", "CONDA_PREFIX", "TOKENIZERS_PARALLELISM", "TESSDATA_PREFIX", "SSL_CERT_FILE", "SSL_CERT_DIR",
        "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN_PATH",
        "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR",
        "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY",
        "http_proxy", "https_proxy", "all_proxy", "no_proxy",
    }
)  # fmt: skip
_BEGINNINGS = (
    "LC_", "PYTHON", "COVERAGE_", "THINKIMG_", "HF_", "TRANSFORMERS_", "SAFETENSORS_", "TORCH_", "TORCHINDUCTOR_",
    "TORCHDYNAMO_", "PYTORCH_", "TRITON_", "VLLM_", "FLAGS_", "PADDLE_", "CUDA_", "NVIDIA_", "CUBLAS_", "CUDNN_",
    "NCCL_", "GLOO_", "TP_", "UCX_", "ROCR_", "HIP_", "HSA_", "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_",
    "NUMEXPR_", "OPENCV_", "MALLOC_",
)  # fmt: skip
_SECRET = frozenset(
    {
        "AUTH", "CREDENTIAL", "CREDENTIALS", "JWT", "KEY", "KEYS", "PASS", "PASSWD", "PASSWORD", "SECRET", "SECRETS",
        "TOKEN", "TOKENS",
    }
)  # fmt: skip
"""A name with such a word passes by its whole name only, never by its beginning."""
_ALONE = frozenset({"builtin", "layout", "onnx", "opencv", "rapidocr"})
"""Backends of ours that fetch no weights of the hub and ask no endpoint, whatever else their tool's options say."""


def handed_over(needed: Collection[str], environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """What of `environment` (None: this process's) a server gets.

    Args:
        needed: names that its configuration needs.
    """
    given = os.environ if environment is None else environment
    names, beginnings = _listed(given.get(PASS_VARIABLE, ""))
    names |= {*needed}

    def passes(name: str) -> bool:
        if name in _NAMES or name in names or name.startswith(beginnings):
            return True
        return name.startswith(_BEGINNINGS) and not _SECRET & {*name.upper().split("_")}

    return {name: value for name, value in given.items() if passes(name)}


def _listed(text: str) -> tuple[set[str], tuple[str, ...]]:
    parts = [part for part in text.replace(",", " ").split() if part.strip("*")]
    return {part for part in parts if part[-1] != "*"}, tuple(part.rstrip("*") for part in parts if part[-1] == "*")


def needed_by_tool(name: str | None, backend: str | None, options: Mapping[str, object]) -> set[str]:
    """Names of the variables that a tool reads for a secret: its endpoint's key, and the hub's token where it takes
    weights and may fetch them itself. Of a tool by entry point, whose options are not known here, only what they name.
    """
    named = {options.get("api_key_variable"), options.get("apiKeyVariable")}
    needed = {one for one in named if isinstance(one, str) and one}
    try:
        if name is not None:
            declaration = find_tool(name)
            if (backend or declaration.backends[0]) not in _ALONE:
                needed |= _read_by(declaration.options.model_validate(dict(options)))
    except (ModelError, UserError, ValidationError):
        return needed  # the server says what is wrong with it
    return needed


def _read_by(options: BaseModel) -> set[str]:
    inner = [value for value in dict(options).values() if isinstance(value, BaseModel)]
    found = {name for part in inner for name in _read_by(part)}
    if isinstance(options, WeightsOptions) and os.environ.get(Variable.FETCH_WEIGHTS) == "1":
        found.add(Variable.HUB_TOKEN)
    if isinstance(options, EndpointOptions):
        found.add(options.api_key_variable)
    return found
