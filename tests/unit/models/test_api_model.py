"""`ApiModel` against a real endpoint on this machine."""

import asyncio
import base64
import io
import socket
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from PIL import Image as Pillow

from tests.support.models.endpoint import Answer, completion, refusal, serve
from thinkimg.agent.agent import Agent, Limits
from thinkimg.agent.tools import NoTools
from thinkimg.errors import InfrastructureError, UserError
from thinkimg.image import Image
from thinkimg.message import ImageBlock, TextBlock, ToolResultBlock
from thinkimg.models.api import ApiModel
from thinkimg.models.chat import ContextFull, Reply, SamplingParameters
from thinkimg.trajectory import Task, Trajectory

PICTURE = Image.from_pixels(Pillow.new("RGB", (3, 2), "red"))


def _jpeg() -> Image:
    buffer = io.BytesIO()
    Pillow.new("RGB", (2, 2), "blue").save(buffer, "JPEG")
    return Image.from_bytes(buffer.getvalue())


CROPPED = _jpeg()


def conversation() -> Trajectory:
    trajectory = Trajectory(question="How tall?")
    first = trajectory.add_image(PICTURE)
    trajectory.add("system", TextBlock(text="You see."))
    trajectory.add("user", ImageBlock(handle=first), TextBlock(text="How tall?"))
    trajectory.add("assistant", TextBlock(text='{"actions": []}'))
    second = trajectory.add_image(CROPPED)
    result = ToolResultBlock(call_id="1", name="Crop", text="cut")
    trajectory.add("tool", TextBlock(text="Crop: "), result, ImageBlock(handle=second), TextBlock(text="."))
    return trajectory


def ask(model: ApiModel, trajectory: Trajectory | None = None, **sampling: Any) -> Reply:
    async def run() -> Reply:
        try:
            return await model.reply(trajectory or conversation(), SamplingParameters(**sampling), seed=2**40 + 7)
        finally:
            await model.close()

    return asyncio.run(run())


def model_of(url: str, **options: Any) -> ApiModel:
    return ApiModel(url, "gpt-x", **({"api_key": "sk-secret", "backoff_seconds": 0.01} | options))


def test_the_conversation_arrives_with_its_pictures_in_their_places() -> None:
    with serve(completion("It is 7.")) as endpoint:
        reply = ask(model_of(endpoint.url), temperature=0.3, max_tokens=99)
    assert reply == Reply("It is 7.", "stop"), "an API gives no tokens"
    (body,) = endpoint.bodies
    assert endpoint.keys == ["Bearer sk-secret"]
    assert body["model"] == "gpt-x"
    assert (body["temperature"], body["max_tokens"], body["seed"]) == (0.3, 99, 7)
    png = "data:image/png;base64," + base64.b64encode(PICTURE.data).decode()
    jpeg = "data:image/jpeg;base64," + base64.b64encode(CROPPED.data).decode()
    assert body["messages"] == [
        {"role": "system", "content": "You see."},
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": png}}, {"type": "text", "text": "How tall?"}],
        },
        {"role": "assistant", "content": '{"actions": []}'},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Crop: cut"},
                {"type": "image_url", "image_url": {"url": jpeg}},
                {"type": "text", "text": "."},
            ],
        },
    ]


@pytest.mark.parametrize(
    ("given", "text", "finish"),
    [
        (completion("cut o", "length"), "cut o", "length"),
        (completion(None), "", "stop"),
        (completion([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]), "ab", "stop"),
        (completion("cut o", "MAX_TOKENS"), "cut o", "length"),
        (Answer(raw=b'{"choices": [{"message": {"content": "\\ud800!"}}]}'), "?!", "stop"),
    ],
)
def test_text_and_finish_are_read_from_any_endpoint(given: Answer, text: str, finish: str) -> None:
    with serve(given) as endpoint:
        assert ask(model_of(endpoint.url)) == Reply(text, finish)


def test_extra_fields_are_sent_and_null_leaves_one_out() -> None:
    with serve(completion("x")) as endpoint:
        ask(model_of(endpoint.url, extra={"max_tokens": None, "max_completion_tokens": 5, "temperature": 0.1}))
    (body,) = endpoint.bodies
    assert "max_tokens" not in body
    assert (body["max_completion_tokens"], body["temperature"]) == (5, 0.1)


def test_usage_and_cost_add_up() -> None:
    answers = [
        completion("a", prompt_tokens=10, completion_tokens=2, cost=0.5),
        refusal(500, "oh"),
        completion("b", prompt_tokens=5, completion_tokens=None),
        completion("c"),
    ]
    with serve(*answers) as endpoint:
        model = model_of(endpoint.url)
        for _ in range(3):  # each in an event loop of its own
            ask(model)
    usage = model.usage
    assert (usage.replies, usage.retries, usage.prompt_tokens, usage.completion_tokens) == (3, 1, 15, 2)
    assert usage.cost == 0.5


@pytest.mark.parametrize(
    "trouble",
    [
        refusal(429, "slow down"),
        refusal(500, "oh"),
        refusal(503, "loading"),
        Answer(502, raw=b"<html>bad gateway</html>"),
        Answer(200, raw=b"not json"),
        Answer(200, body={"choices": []}),
        Answer(200, body=["?"]),
        Answer(200, body={"choices": [{"message": None}]}),
    ],
)
def test_passing_trouble_is_tried_again(trouble: Answer) -> None:
    with serve(trouble, trouble, completion("at last")) as endpoint:
        assert ask(model_of(endpoint.url)).text == "at last"
        assert len(endpoint.bodies) == 3
        assert endpoint.bodies[0] == endpoint.bodies[2]


def test_retry_after_is_honoured() -> None:
    with serve(refusal(429, "wait", {"Retry-After": "0.6"}), completion("yes")) as endpoint:
        assert ask(model_of(endpoint.url)).text == "yes"
    assert endpoint.times[1] - endpoint.times[0] >= 0.6


def test_retry_after_a_date_is_honoured() -> None:
    moment = (datetime.now(UTC) + timedelta(seconds=2)).replace(microsecond=0)
    asked = {"Retry-After": format_datetime(moment, usegmt=True)}
    with serve(refusal(429, "wait", asked), completion("yes")) as endpoint:
        assert ask(model_of(endpoint.url)).text == "yes"
        assert datetime.now(UTC) >= moment


def test_a_wait_longer_than_the_time_out_is_not_waited_for() -> None:
    with serve(refusal(429, "quota", {"Retry-After": "3600"})) as endpoint:
        with pytest.raises(InfrastructureError, match=r"status 429: quota \(1 attempt\)"):
            ask(model_of(endpoint.url))
        assert len(endpoint.bodies) == 1


def test_trouble_that_stays_is_the_infrastructures() -> None:
    with serve(refusal(503, "overloaded")) as endpoint:
        with pytest.raises(InfrastructureError, match=r"status 503: overloaded \(3 attempts\)") as raised:
            ask(model_of(endpoint.url, retries=2))
        assert "sk-secret" not in str(raised.value)
        assert len(endpoint.bodies) == 3


def test_nobody_listening_is_the_infrastructures() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        with pytest.raises(InfrastructureError, match=r"ConnectError.*\(2 attempts\)"):
            ask(model_of(url, retries=1))


def test_an_endpoint_that_hangs_is_left() -> None:
    with serve(Answer(delay=0.8), completion("quick")) as endpoint:
        assert ask(model_of(endpoint.url, timeout_seconds=0.2)).text == "quick"
    with serve(Answer(delay=0.8)) as endpoint, pytest.raises(InfrastructureError, match=r"no reply within 0\.2 s"):
        ask(model_of(endpoint.url, timeout_seconds=0.2, retries=0))


@pytest.mark.parametrize(
    ("answer", "field", "words"),
    [
        (refusal(401, "invalid key"), "api_key", "invalid key. Give a key that may use this model"),
        (refusal(403, "not yours"), "api_key", "not yours"),
        (refusal(404, "no such model"), "model", "Check the model's name ('gpt-x') and base_url"),
        (Answer(404, raw=b"Not Found"), "model", "Not Found"),
        (refusal(400, "unsupported", param="max_tokens"), "extra.max_tokens", "leave it out with null"),
        (refusal(400, "bad"), "extra.<field>", "answers 400: bad"),
        (Answer(301, raw=b"", headers={"Location": "/v2"}), "base_url", "answers 301"),
    ],
)
def test_a_refusal_names_the_field_and_the_remedy_at_once(answer: Answer, field: str, words: str) -> None:
    with serve(answer) as endpoint:
        with pytest.raises(UserError) as raised:
            ask(model_of(endpoint.url))
        assert raised.value.field == field
        assert words in str(raised.value)
        assert "sk-secret" not in str(raised.value)
        says_nothing = field == "extra.<field>"  # then one question of text alone shows whether others are answered
        assert len(endpoint.bodies) == 1 + says_nothing


def test_a_missing_key_is_said_to_be_missing() -> None:
    with serve(refusal(401, "who are you")) as endpoint:
        with pytest.raises(UserError, match="Give a key: none was sent"):
            ask(model_of(endpoint.url, api_key=None))
        assert endpoint.keys == [None]


@pytest.mark.parametrize(
    "answer",
    [
        refusal(400, "too long", code="context_length_exceeded"),
        Answer(400, {"object": "error", "message": "This model's maximum context length is 4096 tokens.", "code": 400}),
    ],
    ids=["openai", "vllm"],
)
def test_a_full_context_ends_the_conversation(answer: Answer) -> None:
    with serve(answer) as endpoint, pytest.raises(ContextFull):
        ask(model_of(endpoint.url))


@pytest.mark.parametrize(
    "url", ["", "host/v1", "ftp://host", "http://", "http://host:port", "https://h/v1/chat/completions"]
)
def test_an_address_that_cannot_be_is_refused_before_anything_is_sent(url: str) -> None:
    with pytest.raises(UserError) as raised:
        ApiModel(url, "m")
    assert raised.value.field == "base_url"


def test_a_key_is_trimmed_checked_and_not_shown() -> None:
    model = ApiModel("http://host/v1", "m", "sk-secret\n")
    assert model.api_key == "sk-secret"
    assert "sk-secret" not in repr(model)
    with pytest.raises(UserError, match="api_key"):
        ApiModel("http://host/v1", "m", "schlüssel")


def test_requests_under_way_are_bounded() -> None:
    async def all_at_once(model: ApiModel) -> list[Reply]:
        return await asyncio.gather(*(model.reply(conversation(), SamplingParameters(), n) for n in range(9)))

    slow = completion("x")
    slow.delay = 0.05
    with serve(slow) as endpoint:
        assert len(run(all_at_once(model_of(endpoint.url, max_concurrency=3)))) == 9
        assert endpoint.most_under_way == 3


def test_an_agent_talks_to_an_endpoint() -> None:
    texts = ["hm", '{"thought": "t", "actions": [{"name": "Terminate", "arguments": {"ans": "7"}}]}']
    with serve(*map(completion, texts)) as endpoint:
        agent = Agent(model_of(endpoint.url), NoTools(), Limits(rounds=3))
        trajectory = run(agent.run(Task("1", "How tall?", (PICTURE,))))
        assert (trajectory.status, trajectory.answer) == ("answered", "7")
        assert [message["role"] for message in endpoint.bodies[1]["messages"]] == [
            "system",
            "user",
            "assistant",
            "user",
        ]
        assert endpoint.bodies[1]["messages"][3]["content"].startswith("ERROR: There is no JSON object")
        assert all(turn.tokens is None for turn in trajectory.turns)
    trajectory = run(Agent(model_of(endpoint.url, retries=0), NoTools()).run(Task("1", "How tall?", ())))
    assert trajectory.status == "infrastructure", "the endpoint is gone"


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)
