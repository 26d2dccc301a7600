"""What real endpoints say instead of an answer, as callers of the gateway are told it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from tests.support.evaluation.refusals import QUESTIONS, SETTINGS, Case, Stub, play
from tests.support.gateway.gateways import run_gateway
from tests.support.models.endpoint import Answer, refusal

CODES = {
    "content": (400, "content_filter"),
    "picture": (400, "invalid_image"),
    "size": (413, "request_too_large"),
    "other": (400, "refused"),
}
Chat = tuple[openai.OpenAI, Stub]


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory, tool_urls: list[str]) -> Iterator[Chat]:
    with play() as stub:
        arguments = {"retries": 2, "backoff_seconds": 0.001}
        model = {"name": "m", "base_url": stub.url, "model": "inner", "model_args": arguments}
        settings = {"servers": [{"url": tool_urls[0]}], "models": [model]}
        with run_gateway(tmp_path_factory.mktemp("refusals"), **settings) as gateway:
            yield openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0, timeout=120), stub


def ask(client: openai.OpenAI, text: str, **options: Any) -> Any:
    return client.chat.completions.create(model="m", messages=[{"role": "user", "content": text}], **options)


def outcome(client: openai.OpenAI, case: Case) -> tuple[int, str | None]:
    try:
        return 200, ask(client, f"<{case.name}> How many?").choices[0].message.content
    except openai.APIStatusError as error:
        return error.status_code, error.code


def test_each_caller_learns_whose_it_is_and_the_others_are_answered(chat: Chat) -> None:
    client, _ = chat
    assert ask(client, "How many?").choices[0].message.content == "7"
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda case: outcome(client, case), QUESTIONS))
    for case, said in zip(QUESTIONS, found, strict=True):
        ends = {"answered": (200, "7"), "tokens": (400, "context_length_exceeded")}
        assert said == ends.get(case.ends, CODES.get(case.reason)), case.name


def test_the_error_has_openais_shape_and_says_nothing_of_what_is_behind(chat: Chat) -> None:
    client, _ = chat
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, "<azure> How many?")
    assert caught.value.type == "invalid_request_error"
    assert caught.value.param == "messages"
    assert "azure" not in caught.value.message.lower()


def test_a_stream_ends_with_the_same_error(chat: Chat) -> None:
    client, _ = chat
    with pytest.raises(openai.APIError) as caught:
        list(ask(client, "<dashscope> How many?", stream=True))
    assert caught.value.code == "content_filter"


def test_what_is_the_upstreams_comes_with_the_time_to_wait(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    client, stub = chat
    busy = refusal(503, "overloaded", {"retry-after": "3600"})
    monkeypatch.setitem(stub.cases, "busy", Case("busy", "", busy, "refused"))
    with pytest.raises(openai.InternalServerError) as caught:
        ask(client, "<busy> How many?")
    assert caught.value.status_code == 503
    assert caught.value.response.headers["retry-after"] == "3600"
    assert caught.value.code == "unavailable"


def test_a_wrong_setting_is_the_gateways(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    client, stub = chat
    monkeypatch.setitem(stub.cases, "key", Case("key", "", SETTINGS[-2].answer, "refused"))
    with pytest.raises(openai.InternalServerError) as caught:
        ask(client, "<key> How many?")
    assert (caught.value.status_code, caught.value.code) == (502, "misconfigured")


def test_a_field_of_the_caller_that_the_model_does_not_take_is_the_callers(
    chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, stub = chat
    answer: Answer = refusal(
        400, "Unsupported parameter: 'logit_bias'", param="logit_bias", code="unsupported_parameter"
    )
    monkeypatch.setitem(stub.cases, "field", Case("field", "", answer, "refused"))
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, "<field> How many?", logit_bias={"5": 1})
    assert (caught.value.code, caught.value.param) == ("unsupported", "logit_bias")
