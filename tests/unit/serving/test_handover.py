"""What of its environment a supervisor hands over to a server."""

import pytest

from thinkimg.gateway.config import GatewayConfig
from thinkimg.serving.config import ServerConfig
from thinkimg.serving.handover import handed_over

TOKEN = "HF_TOKEN"
SETTINGS = [
    "PATH", "HOME", "LANG", "LC_ALL", "TZ", "HF_HOME", "HF_ENDPOINT", "HF_HUB_OFFLINE", "TOKENIZERS_PARALLELISM",
    "CUDA_VISIBLE_DEVICES", "NCCL_SOCKET_IFNAME", "OMP_NUM_THREADS", "HTTP_PROXY", "https_proxy", "no_proxy",
    "SSL_CERT_FILE", "PYTHONPATH", "THINKIMG_OCR_CACHE", "LD_LIBRARY_PATH", "XDG_CACHE_HOME", "HF_TOKEN_PATH",
]  # fmt: skip
SECRETS = [
    "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY", "WANDB_API_KEY", "SLURM_JWT",
    "VLLM_API_KEY", "THINKIMG_PLANNER_API_KEY", "THINKIMG_SERVER_KEY_0", "THINKIMG_TOOL_KEY_1", "THINKIMG_VIEW_TOKEN",
    "THINKIMG_TOOL_API_KEY", "PYTHON_KEYRING_PASSWORD", "SSH_AUTH_SOCK", "MY_OWN",
]  # fmt: skip
ENDPOINT = {"endpoint": "http://host/v1", "model": "some"}


def needed(**entry: object) -> set[str]:
    return ServerConfig.model_validate({"tools": [entry]}).needed - {"THINKIMG_TOOL_API_KEY"}


def test_settings_pass_and_secrets_do_not_whatever_they_begin_with() -> None:
    given = dict.fromkeys([*SETTINGS, *SECRETS], "value")
    assert sorted(handed_over([], given)) == sorted(SETTINGS)


def test_what_is_needed_or_listed_passes() -> None:
    given = dict.fromkeys(["HF_TOKEN", "MY_ONE", "MY_TWO", "MINE", "OTHER"], "value")
    listed = {"THINKIMG_PASS_ENVIRONMENT": "MY_*, MINE"}
    assert sorted(handed_over(["HF_TOKEN"], given | listed)) == ["HF_TOKEN", "MINE", "MY_ONE", "MY_TWO"]
    assert handed_over([], given | {"THINKIMG_PASS_ENVIRONMENT": "*"}) == {}


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"name": "Crop"}, set()),
        ({"name": "SAM"}, {TOKEN}),
        ({"name": "GroundedSAM"}, {TOKEN}),
        ({"name": "SegmentRegionAroundPoint"}, set()),
        ({"name": "SegmentRegionAroundPoint", "backend": "transformers"}, {TOKEN}),
        ({"name": "Point"}, set()),
        ({"name": "Point", "backend": "vlm", "options": ENDPOINT}, {"THINKIMG_VLM_API_KEY"}),
        ({"name": "Point", "backend": "vlm", "options": {**ENDPOINT, "apiKeyVariable": "MINE"}}, {"MINE"}),
        ({"entry_point": "some:tool", "options": {"api_key_variable": "MINE"}}, {"MINE"}),
        ({"entry_point": "some:tool"}, set()),
        ({"name": "NoSuchTool"}, set()),
        ({"name": "SAM", "options": {"no_such": 1}}, set()),
    ],
)
def test_a_tool_server_needs_what_its_tools_read(
    entry: dict[str, object], expected: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert needed(**entry) == expected - {TOKEN}, "weights are fetched before, by a command"
    monkeypatch.setenv("THINKIMG_FETCH_WEIGHTS", "1")
    assert needed(**entry) == expected


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({"base_url": "http://host/v1", "api_key_variable": "MINE"}, {"MINE"}),
        ({"base_url": "http://host/v1"}, set()),
        ({"model": "org/name"}, {TOKEN}),
        ({"model": "org/name", "base_url": "http://host", "backend": "vllm-server"}, {TOKEN, "VLLM_API_KEY"}),
        ({"model": "org/name", "backend": "vllm-server", "model_args": {"api_key_variable": "MINE"}}, {TOKEN, "MINE"}),
    ],
)
def test_a_gateway_needs_the_keys_of_its_servers_and_models(model: dict[str, object], expected: set[str]) -> None:
    servers = [{"url": "http://127.0.0.1:1", "api_key_variable": "SERVER"}, {"url": "http://127.0.0.1:2"}]
    config = GatewayConfig.model_validate({"servers": servers, "models": [{"name": "some", **model}]})
    assert config.needed == {"SERVER", *expected}
