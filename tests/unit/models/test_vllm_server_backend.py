"""The backend `vllm-server`: configuration and processor from here, tokens from a server that speaks its protocol."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support.models.model_folders import save_model
from tests.support.models.tiny_world import conversation, family, picture
from thinkimg.errors import InfrastructureError, UserError
from thinkimg.models.backends import find_model, make_model
from thinkimg.models.chat import ChatModel, ContextFull, QuestionRefused, SamplingParameters
from thinkimg.trajectory import InvariantError

SAID = "what is the value of bar"


class Server:
    """`/inference/v1/generate`: placeholders are expanded as the engine does it, and the reply is always SAID."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.tokens_of_an_image = family().image_tokens(picture())
        self.failures: list[int] = []
        self.complaint: dict[str, Any] = {"detail": "busy"}

    def answer(self, path: str, key: str | None, body: dict[str, Any]) -> tuple[int, Any]:
        self.keys.append(key)
        self.bodies.append(body)
        if path != "/inference/v1/generate":
            return 404, {"detail": "Not Found"}
        if self.failures:
            return self.failures.pop(), self.complaint
        prompt = [
            token
            for given in body["token_ids"]
            for token in [given] * (self.tokens_of_an_image if given == family().image_token_id else 1)
        ]
        tokens = family().encode_reply(SAID)
        content = [{"token": "", "logprob": -0.5} for _ in tokens]
        choice = {"token_ids": tokens, "logprobs": {"content": content}, "finish_reason": "stop"}
        return 200, {"prompt_token_ids": prompt, "choices": [choice]}


@contextmanager
def serving(server: Server) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            status, answer = server.answer(self.path, self.headers["authorization"], body)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{http.server_address[1]}"
    finally:
        http.shutdown()
        http.server_close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Configuration and processor only: the server has the weights."""
    made = save_model(tmp_path_factory.mktemp("model") / "model")
    (made / "model.safetensors").unlink()
    return made


def model_at(folder: Path, url: str, **options: Any) -> ChatModel:
    arguments = {"base_url": url, **options}
    return make_model(find_model(str(folder), "vllm-server", arguments), "vllm-server", arguments)


def reply(model: ChatModel, *pictures: Any) -> Any:
    return asyncio.run(model.reply(conversation(*pictures), SamplingParameters(0.7, 16), seed=2**63 + 5))


def test_a_turn_is_asked_in_tokens_and_pictures_and_comes_back_with_its_log_probabilities(folder: Path) -> None:
    server = Server()
    with serving(server) as url:
        made = reply(model_at(folder, url), picture())
    assert made.text == SAID
    assert made.finish == "stop"
    assert made.logprobs == [-0.5] * len(made.tokens)
    (body,) = server.bodies
    assert body["token_ids"].count(family().image_token_id) == 1, "the engine expands placeholders itself"
    (part,) = body["content_parts"]
    assert part["uuid"] == picture().sha256
    assert part["url"].startswith("data:image/")
    options = body["sampling_params"]
    assert (options["temperature"], options["max_tokens"], options["seed"]) == (0.7, 16, 5)
    assert set(options["stop_token_ids"]) == set(family().stop_ids)


def test_a_key_is_sent_if_its_variable_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "secret")
    server = Server()
    with serving(server) as url:
        reply(model_at(folder, f"{url}/v1", api_key_variable="MY_KEY"))
    assert server.keys == ["Bearer secret"]


def test_a_busy_server_is_asked_again_and_a_broken_one_given_up(folder: Path) -> None:
    server = Server()
    with serving(server) as url:
        server.failures = [503]
        assert reply(model_at(folder, url)).text == SAID
        server.failures = [500]
        with pytest.raises(InfrastructureError, match="status 500"):
            reply(model_at(folder, url, retries=0))


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ("The decoder prompt (length 5000) is longer than the maximum model length of 4096.", ContextFull),
        ("At most 1 image(s) may be provided in one request.", QuestionRefused),
        ("no", QuestionRefused),  # others were answered
    ],
)
def test_what_is_refused_of_one_request_is_that_requests(folder: Path, message: str, error: type[Exception]) -> None:
    server = Server()
    server.complaint = {"error": {"message": message, "type": "BadRequestError", "code": 400}}
    with serving(server) as url:
        model = model_at(folder, url)
        assert reply(model).text == SAID
        server.failures = [400]
        with pytest.raises(error, match="answers 400"):
            reply(model)


def test_what_is_refused_before_anything_was_answered_is_the_settings(folder: Path) -> None:
    server = Server()
    server.failures = [400]
    with serving(server) as url, pytest.raises(UserError, match="answers 400: busy"):
        reply(model_at(folder, url))


def test_a_picture_too_thin_for_the_processor_is_refused(folder: Path) -> None:
    with pytest.raises(QuestionRefused, match="too thin to be shown to a model: 500x2 pixels"):
        reply(model_at(folder, "http://127.0.0.1:9"), picture(0, 500, 2))


def test_a_server_with_other_pixels_is_noticed(folder: Path) -> None:
    server = Server()
    server.tokens_of_an_image += 3
    with serving(server) as url, pytest.raises(InvariantError, match="the engine saw"):
        reply(model_at(folder, url), picture())


def test_the_servers_context_is_kept(folder: Path) -> None:
    with pytest.raises(ContextFull):
        reply(model_at(folder, "http://127.0.0.1:9", max_model_len=4))


def test_what_is_missing_or_unknown_is_refused_by_name(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="base_url"):
        make_model(find_model(str(folder), "vllm-server"), "vllm-server")
    with pytest.raises(UserError, match="'wings'"):
        model_at(folder, "http://127.0.0.1:9", wings=2)
    with pytest.raises(UserError, match="no http"):
        model_at(folder, "127.0.0.1:9")
    with pytest.raises(UserError, match="no folder"):
        model_at(tmp_path / "nothing here", "http://127.0.0.1:9")
    server = Server()
    with serving(server) as url, pytest.raises(UserError, match="--enable-scale-out"):
        reply(model_at(folder, f"{url}/elsewhere"))


def test_evaluation_and_the_gateway_have_it(folder: Path, tmp_path: Path) -> None:
    from thinkimg.evaluation.options import Options
    from thinkimg.evaluation.run import run_evaluation
    from thinkimg.gateway.config import Upstream
    from thinkimg.gateway.openai import upstream_model

    server = Server()
    server.tokens_of_an_image = 9  # of a chart
    with serving(server) as url:
        (found,) = run_evaluation(
            Options(
                ["charts"], str(folder), tmp_path / "out", "vllm-server", {"base_url": url},
                data="charts://?questions=6", limit=2, max_rounds=1,
            )
        )  # fmt: skip
        assert found.n == 2
        assert found.infrastructure == 0
        asked = len(server.bodies)
        assert asked == 2
        served = upstream_model(Upstream(name="mine", base_url=url, model=str(folder), backend="vllm-server"), 60)
        assert reply(served.model).text == SAID
