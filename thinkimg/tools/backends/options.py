"""Options that all backends with weights share. Nothing heavy is imported here."""

from typing import Literal

from pydantic import Field

from thinkimg.tools.tool import ToolOptions


class WeightsOptions(ToolOptions):
    """Where weights come from and what they run on.

    Attributes:
        weights: a hub repository (`org/name`, `hf://org/name`), or the path of a folder or of one file. Empty: the
            default of the backend.
        revision: commit, tag or branch of a hub repository; None is its main branch.
        trust_remote_code: let transformers run Python code that the repository brings.
        device: `auto` (CUDA if there is a GPU, else the CPU), `cpu`, `cuda` or `cuda:N`.
        dtype: in which precision the model computes.
    """

    weights: str = ""
    revision: str | None = None
    trust_remote_code: bool = False
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"


class SegmenterOptions(WeightsOptions):
    """Options of the backends of SAM.

    Attributes:
        embedding_cache_bytes: memory for embeddings, the costly half of a call, so that more points on the same picture
            cost the cheap half only; least recently used out first. 0 keeps none. (One of SAM takes 4 MiB, one of
            SAM 2 21 MiB, in float32.)
    """

    embedding_cache_bytes: int = Field(default=1024 * 1024 * 1024, ge=0)


class DetectorOptions(WeightsOptions):
    """Options of the backends of GroundingDINO.

    Attributes:
        text_encoder: tokenizer and BERT of the `groundingdino` backend, as for `weights`; `transformers` has them with
            its weights.
        most: boxes that are returned, the best first.
    """

    text_encoder: str = "google-bert/bert-base-uncased"
    most: int = Field(default=100, ge=1, le=900)


class EndpointOptions(ToolOptions):
    """Options of the `vlm` backends: a vision-language model behind an OpenAI-compatible endpoint.

    Attributes:
        endpoint: its address up to and without `/chat/completions`, such as `http://host:8000/v1`. Pictures are sent
            there.
        model: the endpoint's name of the model.
        api_key_variable: the environment variable that holds the key, if the endpoint wants one.
        timeout_seconds: of one answer.
        max_tokens: of one answer.
    """

    endpoint: str = ""
    model: str = ""
    api_key_variable: str = Field(default="THINKIMG_VLM_API_KEY", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    timeout_seconds: float = Field(default=60, gt=0, le=3600, allow_inf_nan=False)
    max_tokens: int = Field(default=1024, ge=1, le=65536)
