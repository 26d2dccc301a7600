"""Every field of a request is honoured or refused by its name; the caller's tools are offered, and handed back."""

import asyncio
import json
from typing import Any

import pytest

from thinkimg.agent.agent import Agent, Limits
from thinkimg.agent.formats import FORMATS, get_format
from thinkimg.agent.tools import NoTools, OfferedTools
from thinkimg.errors import ModelError
from thinkimg.gateway.openai.completion import Completion
from thinkimg.gateway.openai.conversation import Conversation
from thinkimg.gateway.openai.functions import Functions, WithFunctions
from thinkimg.gateway.openai.models import Asked, ServedModel
from thinkimg.gateway.openai.request import ChatRequest, read_request
from thinkimg.gateway.refusals import Refusal
from thinkimg.models.api import ApiModel
from thinkimg.models.chat import Reply, SamplingParameters
from thinkimg.tools.tool import ToolSchema
from thinkimg.trajectory import Trajectory

USER = [{"role": "user", "content": "How many?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a place.",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
    },
}
OURS = {"Crop": ToolSchema(name="Crop", version="1", description="Cut.", parameters={}, aliases=("cutout",))}


class Scripted:
    """A model in this process that says what a test wrote down; each turn costs 10 and 4 tokens."""

    def __init__(self, *said: str) -> None:
        self.said = list(said)
        self.sampling: list[SamplingParameters] = []
        self.seeds: list[int] = []
        self.shown: list[str] = []

    async def reply(self, trajectory: Trajectory, sampling: SamplingParameters, seed: int) -> Reply:
        self.sampling.append(sampling)
        self.seeds.append(seed)
        self.shown = [turn.message.text for turn in trajectory.turns]
        return Reply(self.said.pop(0), "stop", prompt_tokens=10, completion_tokens=4)


def request(**fields: Any) -> ChatRequest:
    return read_request(json.dumps({"model": "m", "messages": USER, **fields}).encode())


def field_refused(**fields: Any) -> str:
    with pytest.raises(Refusal) as caught:
        request(**fields)
    assert caught.value.problem.status == 400
    return str(caught.value.problem.extra["param"])


def call(name: str, **arguments: Any) -> str:
    return json.dumps({"thought": "t", "actions": [{"name": name, "arguments": arguments}]})


def complete(model: Any, format: str = "openthinkimg", rounds: int = 4, **fields: Any) -> Completion:
    """As `ChatFace` answers, without HTTP and without tools of ours."""
    asked = request(**fields)
    served = ServedModel("m", model, get_format(format))
    functions = Functions(asked.tools or [], asked.tool_choice, asked.parallel_tool_calls, {})
    tools = WithFunctions(OfferedTools(NoTools(), {}), functions)
    agent = Agent(Asked.of(asked, served), tools, Limits(rounds=rounds), served.format, check=functions.check)
    completion = Completion(asked, served, agent, functions)

    async def run() -> None:
        await completion.read(None, None)  # type: ignore[arg-type]  # no picture is read
        await completion.run()

    asyncio.run(run())
    return completion


# ---- fields ---------------------------------------------------------------------------------------------------------


def test_a_null_is_a_field_left_out() -> None:
    names = [name for name in ChatRequest.model_fields if name not in ("model", "messages")]
    asked = request(**dict.fromkeys(names))
    assert asked == request()
    assert asked.stream is False


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"function_call": {"name": "f"}}, "function_call"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"audio": {"voice": "alloy", "format": "wav"}}, "audio"),
        ({"prediction": {"type": "content", "content": "x"}}, "prediction"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation"),
        ({"stream": True, "stream_options": {"every": 3}}, "stream_options.every"),
        ({"stop": [""]}, "stop[0]"),
        ({"frequency_penalty": 3}, "frequency_penalty"),
        ({"chat_template_kwargs": {"enable_thinking": False}}, "chat_template_kwargs"),
        ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools[0].type"),
        ({"tools": [WEATHER], "tool_choice": "always"}, "tool_choice"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"required": 5}}}]},
            "tools[0].function.parameters",
        ),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_its_name(fields: dict[str, Any], param: str) -> None:
    assert field_refused(**fields) == param


def test_what_asks_for_nothing_is_taken() -> None:
    request(n=1, logprobs=False, modalities=["text"], response_format={"type": "text"}, tool_choice="auto", tools=[])


def test_what_only_an_endpoint_knows_is_sent_to_it_and_refused_for_a_model_in_this_process() -> None:
    fields = {"reasoning_effort": "low", "user": "u", "metadata": {"a": "b"}, "store": True, "logit_bias": {"7": -100}}
    endpoint = ServedModel("m", ApiModel("http://127.0.0.1:1/v1", "inner"), get_format("hermes"))
    assert Asked.of(request(**fields), endpoint).extra == fields
    here = ServedModel("m", Scripted(), get_format("hermes"))
    for name, value in fields.items():
        with pytest.raises(Refusal, match=f"{name}: this model runs in the gateway"):
            Asked.of(request(**{name: value}), here)
    assert Asked.of(request(store=False, service_tier="auto", metadata={}), here).extra == {}


def test_a_field_that_the_configuration_holds_is_refused_unless_it_says_the_same() -> None:
    model = ApiModel("http://127.0.0.1:1/v1", "inner", extra={"temperature": None, "reasoning_effort": "high"})
    served = ServedModel("m", model, get_format("hermes"))
    for fields in ({"temperature": 0.5}, {"reasoning_effort": "low"}):
        with pytest.raises(Refusal, match="this model"):
            Asked.of(request(**fields), served)
    Asked.of(request(reasoning_effort="high"), served)


def test_without_a_seed_each_request_is_drawn_anew_and_with_one_it_is_repeated() -> None:
    def seeds(**fields: Any) -> list[int]:
        model = Scripted(call("nothing"), call("Terminate", ans="7"))
        complete(model, **fields)
        return model.seeds

    assert len({*seeds(), *seeds(), *seeds()}) == 6
    assert seeds(seed=-5) == seeds(seed=-5) != seeds(seed=6)


def test_the_limit_of_tokens_is_of_all_turns() -> None:
    model = Scripted(call("nothing"), call("nothing"), call("Terminate", ans="7"))
    completion = complete(model, max_tokens=7)
    assert [sampling.max_tokens for sampling in model.sampling] == [7, 3]
    assert (completion.finish, completion.usage["completion_tokens"]) == ("length", 8)


def test_an_endpoint_that_names_the_limit_otherwise_is_held_to_it() -> None:
    model = ApiModel("http://127.0.0.1:1/v1", "i", extra={"max_tokens": None, "max_completion_tokens": 500})
    asked = Asked.of(request(max_tokens=70), ServedModel("m", model, get_format("hermes")))
    assert asked._bounded(70) == {"max_completion_tokens": 70}
    assert asked._bounded(900) == {"max_completion_tokens": 500}


def test_stop_ends_the_answer_and_no_call() -> None:
    completion = complete(Scripted(call("nothing", x="END"), call("Terminate", ans="7 END of it")), stop="END")
    assert (completion.answer, completion.finish) == ("7 ", "stop")


# ---- the caller's tools ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", sorted(FORMATS))
def test_the_callers_tools_are_offered_handed_back_and_gone_on_with(format: str) -> None:
    from thinkimg.agent.formats import Call, Parsed

    syntax = get_format(format)
    said = syntax.write(Parsed(calls=(Call("GetWeather", {"place": "Rome"}), Call("get_weather", {"place": "Oslo"}))))
    model = Scripted(syntax.write(Parsed(calls=(Call("nothing", {}),))), said)
    completion = complete(model, format, tools=[WEATHER])
    assert "get_weather" in model.shown[0]
    message = completion.document()["choices"][0]
    assert message["finish_reason"] == "tool_calls"
    calls = message["message"]["tool_calls"]
    assert message["message"]["content"] is None
    assert [call["function"]["name"] for call in calls] == ["get_weather"] * 2
    assert json.loads(calls[1]["function"]["arguments"]) == {"place": "Oslo"}
    assert completion.usage == {"prompt_tokens": 20, "completion_tokens": 8, "total_tokens": 28}

    results = [{"role": "tool", "tool_call_id": call["id"], "content": f"sun {n}"} for n, call in enumerate(calls)]
    model = Scripted(syntax.write(Parsed(answer="warm")))
    again = complete(model, format, tools=[WEATHER], messages=[*USER, message["message"], *results])
    assert (again.answer, again.finish) == ("warm", "stop")
    assert [turn.role for turn in again.trajectory.turns] == ["system", "user", "assistant", "tool", "assistant"]
    assert all(text in model.shown[3] for text in ("sun 0", "sun 1"))
    assert syntax.parse(model.shown[2]).calls[1] == Call("get_weather", {"place": "Oslo"})


def test_a_call_in_the_last_round_is_handed_back_too() -> None:
    completion = complete(Scripted(call("get_weather", place="Rome")), rounds=1, tools=[WEATHER])
    assert completion.finish == "tool_calls"


def test_a_choice_of_tools_is_kept() -> None:
    answer, asked = call("Terminate", ans="7"), call("get_weather", place="Rome")
    other = {"type": "function", "function": {"name": "other"}}
    for choice in ("required", {"type": "function", "function": {"name": "get_weather"}}):
        model = Scripted(answer, asked)
        assert complete(model, tools=[WEATHER, other], tool_choice=choice).finish == "tool_calls"
        assert ("other" in model.shown[0]) == (choice == "required")
    model = Scripted(asked, answer)
    assert complete(model, tools=[WEATHER], tool_choice="none").answer == "7"
    assert "get_weather" not in model.shown[0]
    two = json.dumps({"actions": [{"name": "get_weather", "arguments": {}}] * 2})
    assert len(complete(Scripted(two, asked), tools=[WEATHER], parallel_tool_calls=False).handed) == 1


def test_calls_of_ours_and_of_the_callers_do_not_share_a_turn() -> None:
    functions = Functions(request(tools=[WEATHER]).tools or [], None, True, OURS)
    both = json.dumps({"actions": [{"name": "Crop", "arguments": {}}, {"name": "get_weather", "arguments": {}}]})
    with pytest.raises(ModelError, match="get_weather in a turn without other tools"):
        functions.check(get_format("openthinkimg").parse(both))


@pytest.mark.parametrize("name", ["crop", "Cut_Out", "Terminate"])
def test_a_name_that_is_taken_is_refused(name: str) -> None:
    tools = request(tools=[{"type": "function", "function": {"name": name}}]).tools or []
    with pytest.raises(Refusal, match=r"tools\[0\].function.name.* name"):
        Functions(tools, None, True, OURS)


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        ([{"role": "tool", "tool_call_id": "a", "content": "x"}], "messages[1].tool_call_id"),
        ([{"role": "assistant", "content": None, "tool_calls": [{"id": "a"}]}], "messages[1].tool_calls[0]"),
        ([{"role": "assistant", "content": "x", "function_call": {"name": "f"}}], "messages[1].function_call"),
        ([{"role": "user", "content": [{"type": "text", "text": "x", "cache_control": {"a": 1}}]}],
         "messages[1].content[0].cache_control"),
    ],
)  # fmt: skip
def test_a_conversation_that_cannot_be_is_refused_by_the_place(messages: list[Any], field: str) -> None:
    with pytest.raises(Refusal) as caught:
        asyncio.run(Conversation(None, None, get_format("hermes")).read(USER + messages, ""))  # type: ignore[arg-type]
    assert caught.value.problem.extra["param"] == field


def test_a_call_without_its_result_is_refused() -> None:
    function = {"name": "f", "arguments": "{}"}
    said = {"role": "assistant", "content": None, "tool_calls": [{"id": "a", "type": "function", "function": function}]}
    with pytest.raises(Refusal, match="the calls a have no message of role tool"):
        asyncio.run(Conversation(None, None, get_format("hermes")).read([*USER, said, *USER], ""))  # type: ignore[arg-type]
