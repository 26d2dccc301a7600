"""Chat completions with the tool loop inside, through the official `openai` client."""

import base64
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from PIL import Image as Pillow

from tests.support.gateway.gateways import Gateway, run_gateway
from tests.support.models.endpoint import Answer, Endpoint, completion, refusal, serve
from thinkimg.gateway.keys import add_key
from thinkimg.image import Image

CROP = '{"thought": "look", "actions": [{"name": "Crop", "arguments": {"image": "img_1", "box": [0, 0, 50, 100]}}]}'
DRAW = '{"thought": "", "actions": [{"name": "DrawVerticalLineByX", "arguments": {"image": "img_2", "x": 50}}]}'
ANSWER = '{"thought": "seen", "actions": [{"name": "Terminate", "arguments": {"ans": "forty-two"}}]}'
Chat = tuple[Gateway, openai.OpenAI, Endpoint]


def picture(color: str = "white") -> Image:
    return Image.from_pixels(Pillow.new("RGB", (60, 40), color))


def data_url(image: Image) -> str:
    return f"data:image/png;base64,{base64.b64encode(image.data).decode()}"


def question(*urls: str) -> list[Any]:
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": "How many?"}]}]


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory, tool_urls: list[str]) -> Iterator[Chat]:
    folder = tmp_path_factory.mktemp("chat")
    key = add_key(folder / "keys.json", "alice", metrics=True)
    with serve(completion(ANSWER)) as upstream:
        model = {"name": "thinker", "base_url": upstream.url, "model": "inner", "api_key_variable": "UPSTREAM_KEY"}
        few = {**model, "name": "few-tools", "tools": ["Echo"]}
        servers = [{"url": url} for url in tool_urls]
        limits = {"rounds": 3, "image_pixels": 1_000_000}
        settings = {"servers": servers, "models": [model, few], "keys_file": "keys.json", "limits": limits}
        with run_gateway(folder, {"UPSTREAM_KEY": "upstream-secret"}, **settings) as gateway:
            client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0, timeout=120)
            yield gateway, client, upstream


@contextmanager
def answers(chat: Chat, *scripted: Answer) -> Iterator[Endpoint]:
    """What the model says from here on."""
    upstream = chat[2]
    upstream.bodies.clear()
    upstream.answers = list(scripted)
    yield upstream


def test_the_models_are_listed(chat: Chat) -> None:
    _, client, _ = chat
    assert [model.id for model in client.models.list()] == ["thinker", "few-tools"]
    assert client.models.retrieve("thinker").owned_by == "thinkimg"
    with pytest.raises(openai.NotFoundError, match="there is no model"):
        client.models.retrieve("other/model")


def test_the_caller_sees_the_answer_and_what_it_cost(chat: Chat) -> None:
    _, client, _ = chat
    said = [completion(text, prompt_tokens=100, completion_tokens=10) for text in (CROP, DRAW, ANSWER)]
    with answers(chat, *said) as upstream:
        reply = client.chat.completions.create(model="thinker", messages=question(data_url(picture())))
    assert reply.choices[0].message.content == "forty-two"
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.total_tokens) == (300, 30, 330)
    assert not hasattr(reply, "thinkimg")
    assert upstream.keys[-1] == "Bearer upstream-secret"
    shown = [part for part in upstream.bodies[2]["messages"][-1]["content"] if part["type"] == "image_url"]
    drawn = Image.from_bytes(base64.b64decode(shown[0]["image_url"]["url"].partition(",")[2]))
    assert (drawn.width, drawn.height) == (30, 40)  # the line was drawn on what was cropped
    assert drawn.pixels().getpixel((15, 20)) == (230, 25, 75)


def test_the_trace_and_the_pictures_come_when_asked_for(chat: Chat) -> None:
    _, client, _ = chat
    with answers(chat, completion(CROP), completion(ANSWER)):
        reply = client.chat.completions.create(
            model="thinker",
            messages=question(data_url(picture())),
            extra_body={"thinkimg": {"trace": True, "images": True}},
        )
    extension: dict[str, Any] = reply.thinkimg  # type: ignore[attr-defined]
    assert extension["status"] == "answered"
    assert [entry["role"] for entry in extension["trace"]] == ["assistant", "tool", "assistant"]
    assert extension["trace"][0]["calls"][0]["name"] == "Crop"
    (result,) = extension["trace"][1]["results"]
    assert (result["error"], result["images"]) == (None, ["img_2"])
    made = Image.from_bytes(base64.b64decode(extension["images"]["img_2"].partition(",")[2]))
    assert (made.width, made.height) == (30, 40)


def test_streaming(chat: Chat) -> None:
    _, client, _ = chat
    with answers(chat, completion(CROP, prompt_tokens=7, completion_tokens=1), completion(ANSWER)):
        chunks = list(
            client.chat.completions.create(
                model="thinker",
                messages=question(data_url(picture())),
                stream=True,
                stream_options={"include_usage": True},
                extra_body={"thinkimg": {"trace": True}},
            )
        )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "forty-two"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 8
    traced = [entry for chunk in chunks for entry in getattr(chunk, "thinkimg", {}).get("trace", [])]
    assert [entry["role"] for entry in traced] == ["assistant", "tool", "assistant"]
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_picture_can_be_fetched_as_soon_as_the_trace_names_it(chat: Chat) -> None:
    gateway, client, _ = chat
    asked = {"thinkimg": {"trace": True, "overlays": True}}
    with answers(chat, completion(CROP), completion(ANSWER)):
        chunks = client.chat.completions.create(
            model="thinker", messages=question(data_url(picture("red"))), stream=True, extra_body=asked
        )
        traced = (entry for chunk in chunks for entry in getattr(chunk, "thinkimg", {}).get("trace", []))
        observed = next(entry for entry in traced if entry["role"] == "tool")
        ((handle, told),) = observed["pictures"].items()
        got = httpx.get(
            f"{gateway.url}/v1/images/{told['sha256']}", headers={"authorization": f"Bearer {client.api_key}"}
        )
        list(traced)
    made = Image.from_bytes(got.content)
    assert (handle, made.sha256, made.width, made.height) == ("img_2", told["sha256"], told["width"], told["height"])
    assert observed["results"][0]["overlay"] == {"boxes": [[0, 0, 50, 100, ""]], "points": [], "masks": []}


def test_a_conversation_goes_on(chat: Chat) -> None:
    _, client, _ = chat
    messages: list[Any] = [
        {"role": "system", "content": "Be brief."},
        *question(data_url(picture("red"))),
        {"role": "assistant", "content": "Seven."},
        {"role": "user", "content": [{"type": "text", "text": "And now?"}]},
    ]
    with answers(chat, completion(ANSWER)) as upstream:
        assert client.chat.completions.create(model="thinker", messages=messages).choices[0].message.content
    sent = upstream.bodies[0]["messages"]
    assert [message["role"] for message in sent] == ["system", "user", "assistant", "user"]
    assert sent[0]["content"].endswith("Be brief.")
    assert "Crop" in sent[0]["content"]
    assert json.loads(sent[2]["content"])["actions"][0]["arguments"] == {"ans": "Seven."}


def test_a_limit_ends_a_completion_with_length(chat: Chat) -> None:
    _, client, _ = chat
    with answers(chat, completion(CROP)) as upstream:
        reply = client.chat.completions.create(model="thinker", messages=question(data_url(picture())))
    assert (reply.choices[0].finish_reason, reply.choices[0].message.content) == ("length", "")
    assert len(upstream.bodies) == 3


def test_sampling_parameters_reach_the_model(chat: Chat) -> None:
    _, client, _ = chat
    with answers(chat, completion(ANSWER)) as upstream:
        client.chat.completions.create(model="thinker", messages=question(), temperature=0.25, max_tokens=99, top_p=0.9)
        client.chat.completions.create(
            model="thinker",
            messages=question(),
            frequency_penalty=0.5,
            logit_bias={"7": -100},
            reasoning_effort="low",
            user="bob",
            extra_body={"top_k": 3, "stream": None, "tools": None, "stop": None},
        )
    body = upstream.bodies[0]
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("inner", 0.25, 99)
    assert body["top_p"] == 0.9
    assert "top_k" not in body
    forwarded = {"frequency_penalty": 0.5, "logit_bias": {"7": -100}, "reasoning_effort": "low", "user": "bob"}
    assert upstream.bodies[1].items() >= {**forwarded, "top_k": 3}.items()
    assert body["seed"] != upstream.bodies[1]["seed"]


def test_the_callers_tools_come_back_through_the_openai_client_whole_and_streamed(chat: Chat) -> None:
    _, client, _ = chat
    tool: Any = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
    called = completion('{"actions": [{"name": "look_up", "arguments": {"key": "a"}}]}')
    asked: dict[str, Any] = {"model": "thinker", "tools": [tool]}
    with answers(chat, called, called, completion(ANSWER)) as upstream:
        (choice,) = client.chat.completions.create(**asked, messages=question()).choices
        streamed = list(client.chat.completions.create(**asked, messages=question(), stream=True))
        assert choice.message.tool_calls is not None
        (call,) = choice.message.tool_calls
        history = [*question(), choice.message, {"role": "tool", "tool_call_id": call.id, "content": "forty"}]
        reply = client.chat.completions.create(**asked, messages=history)
    assert (choice.finish_reason, call.function.name, call.function.arguments) == (  # type: ignore[union-attr]
        *("tool_calls", "look_up", '{"key": "a"}'),
    )
    deltas = [delta for chunk in streamed for delta in chunk.choices[0].delta.tool_calls or ()]
    assert deltas[0].function is not None
    assert (deltas[0].index, deltas[0].function.name) == (0, "look_up")
    assert streamed[-1].choices[0].finish_reason == "tool_calls"
    assert reply.choices[0].message.content == "forty-two"
    assert "forty" in upstream.bodies[2]["messages"][-1]["content"]
    assert "Crop" in upstream.bodies[2]["messages"][0]["content"]


def test_tools_may_be_chosen_among_those_that_are_offered(chat: Chat) -> None:
    _, client, _ = chat
    with answers(chat, completion(CROP), completion(ANSWER)) as upstream:
        reply = client.chat.completions.create(
            model="few-tools", messages=question(data_url(picture())), extra_body={"thinkimg": {"trace": True}}
        )
    system = upstream.bodies[0]["messages"][0]["content"]
    assert "Echo" in system
    assert "Crop" not in system
    (result,) = reply.thinkimg["trace"][1]["results"]  # type: ignore[attr-defined]
    assert result["error"] == "unknown_tool"
    with answers(chat, completion(ANSWER)) as upstream:
        extra = {"thinkimg": {"tools": []}}
        client.chat.completions.create(model="thinker", messages=question(), extra_body=extra)
    assert "Echo" not in upstream.bodies[0]["messages"][0]["content"]
    extra = {"thinkimg": {"tools": ["Crop"]}}
    with pytest.raises(openai.BadRequestError, match="there is no tool"):
        client.chat.completions.create(model="few-tools", messages=question(), extra_body=extra)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"n": 2}, "n"),
        ({"tools": [{"type": "function", "function": {"name": "crop"}}]}, "tools[0].function.name"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "function", "content": "x", "name": "f"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": "x", "name": "bob"}]}, "messages[0].name"),
        ({"extra_body": {"tempreature": 1}}, "tempreature"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
        ({"temperature": 9}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"extra_body": {"thinkimg": {"tracing": True}}}, "thinkimg.tracing"),
    ],
)
def test_what_is_wrong_is_named(chat: Chat, changes: dict[str, Any], field: str) -> None:
    _, client, _ = chat
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**{"model": "thinker", "messages": question(), **changes})
    assert caught.value.param == field


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("https://example.com/a.png", 400),
        ("http://127.0.0.1:1/a.png", 400),
        ("http://169.254.169.254/latest/meta-data", 400),
        ("file:///etc/passwd", 400),
        ("/etc/passwd", 400),
        ("data:image/png;base64,%%%", 400),
        ("data:image/png;base64,aGVsbG8=", 415),
        ("img_0123456789abcdef", 404),
        (data_url(Image.from_pixels(Pillow.new("RGB", (1000, 2)))), 400),
        (data_url(Image.from_pixels(Pillow.new("1", (1001, 1000)))), 415),
    ],
)
def test_pictures_that_are_refused(chat: Chat, url: str, status: int) -> None:
    _, client, upstream = chat
    before = len(upstream.bodies)
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model="thinker", messages=question(url))
    assert caught.value.status_code == status
    assert len(upstream.bodies) == before


def test_a_field_of_the_callers_that_the_endpoint_refuses_is_the_callers_fault(chat: Chat) -> None:
    _, client, _ = chat
    with answers(chat, refusal(400, "secret words", param="reasoning_effort", code="unsupported_value")):
        with pytest.raises(openai.BadRequestError, match="reasoning_effort: the model's endpoint refuses it") as caught:
            client.chat.completions.create(model="thinker", messages=question(), reasoning_effort="low")
        assert caught.value.param == "reasoning_effort"
        assert "secret" not in str(caught.value)


def test_a_failing_model_is_the_infrastructures_fault_and_its_words_stay_inside(chat: Chat) -> None:
    gateway, client, _ = chat
    with answers(chat, refusal(401, "bad key upstream-secret")), pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model="thinker", messages=question())
    assert caught.value.status_code == 502
    assert "upstream" not in str(caught.value)
    with answers(chat, refusal(401, "bad key")), pytest.raises(openai.APIError, match="not configured"):
        list(client.chat.completions.create(model="thinker", messages=question(), stream=True))
    assert "model 'thinker': the configuration is wrong" in gateway.log


@pytest.mark.slow
def test_a_caller_that_leaves_is_not_answered(chat: Chat) -> None:
    gateway, client, _ = chat
    slow = completion(ANSWER)
    slow.delay = 30
    with answers(chat, slow):
        for stream in (False, True):
            with pytest.raises((openai.APITimeoutError, httpx.TimeoutException)):
                list(client.chat.completions.create(model="thinker", messages=question(), stream=stream, timeout=1.5))
        metrics = {"authorization": f"Bearer {client.api_key}"}
        deadline = time.monotonic() + 120
        while (
            "thinkimg_gateway_requests_in_flight 1.0" not in httpx.get(f"{gateway.url}/metrics", headers=metrics).text
        ):
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.mark.slow
def test_what_is_under_way_when_the_gateway_drains_is_finished(tmp_path: Path, tool_urls: list[str]) -> None:
    slow = completion(CROP)
    slow.delay = 2
    with serve(slow, completion(ANSWER)) as upstream:
        models = [{"name": "thinker", "base_url": upstream.url}]
        with run_gateway(tmp_path, servers=[{"url": tool_urls[0]}], models=models) as gateway:
            client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0, timeout=60)
            with ThreadPoolExecutor(1) as pool:
                reply = pool.submit(
                    client.chat.completions.create, model="thinker", messages=question(data_url(picture()))
                )
                deadline = time.monotonic() + 120
                while not upstream.bodies:  # the model thinks, and will then call a tool
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
                assert gateway.stop() == 0
                assert reply.result().choices[0].message.content == "forty-two"


def test_half_a_character_of_the_models_is_passed_on(chat: Chat) -> None:
    _, client, _ = chat
    broken = json.dumps({"choices": [{"index": 0, "message": {"content": ANSWER.replace("forty", "\\ud800")}}]})
    with answers(chat, Answer(raw=broken.encode(), headers={"content-type": "application/json"})):
        reply = client.chat.completions.create(
            model="thinker", messages=question(), extra_body={"thinkimg": {"trace": True}}
        )
    assert reply.choices[0].message.content is not None
