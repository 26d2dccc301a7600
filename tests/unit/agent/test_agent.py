"""The loop, with a model that follows a script: what it does with calls, with faults, and at its limits."""

import asyncio
import time
from typing import Any

import pytest

from tests.support.agent.scripted import (
    TASK,
    InProcess,
    InTurn,
    Scripted,
    answers,
    bug,
    crash,
    crop,
    picture,
    roles,
    says,
    time_out,
    wait,
)
from thinkimg.agent.agent import Agent, Limits
from thinkimg.agent.formats import Call, get_format
from thinkimg.agent.tools import NoTools
from thinkimg.errors import InfrastructureError
from thinkimg.message import ImageBlock
from thinkimg.models.chat import ContextFull, QuestionRefused, Reply
from thinkimg.trajectory import Task, Trajectory


def run(model: Any, tools: Any = None, limits: Limits | None = None, task: Task = TASK, **options: Any) -> Trajectory:
    return asyncio.run(Agent(model, tools or InProcess(), limits, **options).run(task, seed=5))


def test_an_answer_ends_the_episode() -> None:
    made = run(Scripted(answers("7")))
    assert (made.status, made.answer, made.rounds) == ("answered", "7", 1)
    assert roles(made) == ["system", "user", "assistant"]
    assert (made.question, made.reference) == ("How tall?", "7")
    assert made.meta == {"kind": "bar", "task": "t1"}
    assert made.turns[1].message.content[0] == ImageBlock(handle="img_1")
    assert made.seconds > 0


def test_a_result_and_its_picture_are_observed_and_named() -> None:
    made = run(Scripted(says(Call("crop", {"image": "img_1"})), answers("7")), InProcess(crop))
    assert roles(made) == ["system", "user", "assistant", "tool", "assistant"]
    observation = made.turns[3].message
    assert observation.text == "OBSERVATION:\ncrop: 4x3 img_2:"
    assert observation.images == ["img_2"]
    assert made.images["img_2"] == picture(4, 3)
    (call,), (result,) = made.turns[2].message.tool_calls, observation.tool_results
    assert (call.id, call.name, call.arguments) == (result.call_id, "crop", {"image": "img_1"})
    assert (result.data, result.error, result.cached) == ({"box": [0, 0, 1, 1]}, None, False)
    assert made.turns[2].message.text == says(Call("crop", {"image": "img_1"})), "the text is kept verbatim"


def test_calls_of_a_turn_run_together_and_are_observed_in_their_order() -> None:
    tools = InProcess(wait, crop)
    calls = [Call("wait", {"seconds": 3.0}), Call("crop", {"image": "img_1"}), Call("wait", {"seconds": 1.5}),
             Call("crop", {"image": "img_1", "width": 5})]  # fmt: skip
    made = run(Scripted(says(*calls), answers("7")), tools)
    assert tools.finished == ["4x3", "5x3", "1.5", "3.0"], "together: the shorter ends first"
    results = made.tool_results
    assert [result.text for result in results] == ["3.0", "4x3", "1.5", "5x3"]
    assert [result.call_id for result in results] == [call.id for call in made.turns[2].message.tool_calls]
    assert [result.cached for result in results] == [True, False, True, False]
    assert results[0].seconds >= 3.0
    assert results[0].seconds > results[2].seconds >= 1.5
    assert [made.images[name].width for name in made.images] == [8, 4, 5]


def test_each_fault_of_the_model_is_observed_and_the_episode_goes_on() -> None:
    made = run(
        Scripted(
            "The answer is 7.",
            says(Call("fly", {})),
            says(Call("crop", {"image": "img_9"}), Call("crop", {"image": "img_1"})),
            answers("7"),
        ),
        InProcess(crop),
    )
    assert (made.status, made.answer, made.rounds) == ("answered", "7", 4)
    observed = [turn.message.text for turn in made.turns if turn.role == "tool"]
    assert observed[0].startswith("ERROR: There is no JSON object with 'actions' in your reply. Write one JSON object")
    assert observed[1] == "OBSERVATION:\nfly: ERROR: There is no tool fly."
    assert observed[2] == 'OBSERVATION:\ncrop: ERROR: there is no image "img_9"\ncrop: 4x3 img_2:'
    assert [result.error for result in made.tool_results] == ["unknown_tool", "bad_arguments", None]
    assert made.meta["malformed"] == 1


def test_a_picture_too_thin_for_any_model_is_the_callers_fault() -> None:
    call = says(Call("crop", {"image": "img_1", "width": 1, "height": 201}))
    made = run(Scripted(call, says(Call("crop", {"image": "img_1", "width": 1, "height": 200})), answers("7")),
               InProcess(crop))  # fmt: skip
    assert [result.error for result in made.tool_results] == ["refused", None]
    assert made.tool_results[0].text == "ERROR: crop: the result is too thin to look at: 1x201 pixels."
    assert list(made.images) == ["img_1", "img_2"]


def test_a_question_that_is_not_taken_ends_as_refused() -> None:
    made = run(Scripted(QuestionRefused("status 400: filtered", "content")))
    assert (made.status, made.answer) == ("refused", None)
    assert made.meta["error"] == "status 400: filtered"
    assert made.meta["refusal"] == "content"


def test_a_picture_of_its_own_call_that_is_not_taken_is_the_models_mistake() -> None:
    call = says(Call("crop", {"image": "img_1"}), Call("crop", {"image": "img_1"}))
    refused = QuestionRefused("status 400: must be larger than factor", "picture")
    made = run(InTurn(call, refused, answers("7")), InProcess(crop))
    assert (made.status, made.answer) == ("answered", "7")
    shown = made.turns[3].message
    assert shown.images == []
    assert shown.text.count("cannot be shown to you: status 400: must be larger than factor.") == 2
    assert [result.error for result in made.tool_results] == ["refused", "refused"]
    assert list(made.images) == ["img_1", "img_2", "img_3"], "tools can still be given them"


@pytest.mark.parametrize(
    "replies",
    [
        (QuestionRefused("no", "picture"),),  # the task's own picture
        (says(Call("crop", {"image": "img_1"})), QuestionRefused("no", "content")),
        (says(Call("crop", {"image": "img_1"})), QuestionRefused("no", "picture"), QuestionRefused("no", "picture")),
    ],
)
def test_what_no_observation_can_mend_ends_the_episode(replies: tuple[Any, ...]) -> None:
    assert run(InTurn(*replies), InProcess(crop)).status == "refused"


def test_too_many_calls_of_one_turn_are_refused_together() -> None:
    calls = [Call("crop", {"image": "img_1"})] * 3
    tools = InProcess(crop)
    made = run(Scripted(says(*calls), says(*calls[:2]), answers("7")), tools, Limits(calls_per_turn=2))
    assert made.turns[3].message.text == "ERROR: 3 calls in one turn; at most 2 are run."
    assert len(tools.finished) == 2
    assert made.answer == "7"


def test_a_reply_that_was_cut_off_is_malformed_whatever_it_holds() -> None:
    made = run(Scripted(Reply(answers("7"), "length"), answers("8")), limits=Limits(tokens_per_turn=9))
    assert made.turns[3].message.text == "ERROR: Your reply was cut off after 9 tokens. Be shorter."
    assert made.turns[2].finish == "length"
    assert (made.answer, made.meta["malformed"]) == ("8", 1)


@pytest.mark.parametrize("said", [says(Call("crop", {"image": "img_1"})), "nonsense"])
def test_rounds_are_limited_and_the_last_has_no_observation(said: str) -> None:
    tools = InProcess(crop)
    made = run(Scripted(said), tools, Limits(rounds=3))
    assert (made.status, made.answer, made.rounds) == ("rounds", None, 3)
    assert roles(made) == ["system", "user", *["assistant", "tool"] * 2, "assistant"]
    assert len(tools.finished) in (0, 2), "calls that nobody would read are not made"


def test_an_answer_in_the_last_round_counts() -> None:
    assert run(Scripted("hm", answers("7")), limits=Limits(rounds=2)).status == "answered"


def test_a_full_context_ends_the_episode() -> None:
    made = run(Scripted(says(Call("crop", {"image": "img_1"})), ContextFull("full")), InProcess(crop))
    assert (made.status, made.rounds) == ("tokens", 1)


@pytest.mark.parametrize("slow", ["model", "tool"])
def test_a_hang_is_nobodys_fault(slow: str) -> None:
    model = Scripted(says(Call("wait", {"seconds": 0.0 if slow == "model" else 60})), seconds=60 * (slow == "model"))
    began = time.monotonic()
    made = run(model, InProcess(wait), Limits(seconds=0.1))
    assert (made.status, made.meta["error"]) == ("infrastructure", "hung: nothing has moved for 0.1 s")
    assert time.monotonic() - began < 50, "the call takes 60 s"
    assert made.seconds >= 0.1


def test_waiting_for_others_is_no_hang() -> None:
    """One call after another, each shorter than the limit, all together much longer."""

    class Queue(InProcess):
        gate = asyncio.Semaphore(1)

        async def call(self, *asked: Any) -> Any:
            async with self.gate:
                return await super().call(*asked)

    async def all_at_once() -> list[Trajectory]:
        tools = Queue(wait)
        agents = [
            Agent(Scripted(says(Call("wait", {"seconds": 0.15})), answers("7")), tools, Limits(seconds=0.6))
            for _ in range(8)
        ]
        return await asyncio.gather(*(agent.run(TASK) for agent in agents))

    made = asyncio.run(all_at_once())
    assert {one.status for one in made} == {"answered"}
    assert max(one.seconds for one in made) > 2 * 0.6


def test_limits_reach_the_model_and_each_round_has_a_seed_of_its_own() -> None:
    model = Scripted("hm", "hm", answers("7"))
    run(model, limits=Limits(tokens_per_turn=11, tokens=99))
    again = Scripted("hm", "hm", answers("7"))
    run(again)
    assert {(sampling.max_tokens, sampling.max_context_tokens) for sampling in model.sampling} == {(11, 99)}
    assert len(set(model.seeds)) == 3
    assert model.seeds == again.seeds
    assert all(0 <= seed < 2**63 for seed in model.seeds)


def test_a_broken_engine_is_nobodys_fault() -> None:
    made = run(Scripted("hm", InfrastructureError("out of memory")))
    assert (made.status, made.answer, made.meta["error"]) == ("infrastructure", None, "out of memory")
    assert made.rounds == 1


def test_a_broken_tool_ends_the_episode_at_once_and_stops_the_other_calls() -> None:
    tools = InProcess(wait, crash)

    async def both() -> Trajectory:
        model = Scripted(says(Call("wait", {"seconds": 0.1}), Call("crash", {})))
        made = await Agent(model, tools).run(TASK)
        await asyncio.sleep(0.2)
        return made

    made = asyncio.run(both())
    assert (made.status, made.meta["error"]) == ("infrastructure", "the server is gone")
    assert roles(made)[-1] == "assistant", "no observation of half a turn"
    assert tools.finished == [], "the other call was cancelled"


def test_a_bug_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        run(Scripted(says(Call("bug", {}))), InProcess(bug))


def test_a_time_out_that_nobody_classified_is_not_taken_for_the_limit() -> None:
    with pytest.raises(TimeoutError):
        run(Scripted(says(Call("time_out", {}))), InProcess(time_out))


def test_without_tools_nothing_is_offered_and_nothing_can_be_called() -> None:
    made = run(Scripted(says(Call("OCR", {"image": "img_1"})), answers("7")), NoTools())
    assert "tool" not in made.turns[0].message.text
    assert made.turns[3].message.text == (
        "OBSERVATION:\nOCR: ERROR: There is no tool OCR: this task has no tools. Give your answer."
    )
    assert [result.error for result in made.tool_results] == ["unknown_tool"]
    assert made.answer == "7"


@pytest.mark.parametrize("name", ["openthinkimg", "hermes"])
@pytest.mark.parametrize("style", ["full", "compact"])
def test_the_prompt_tells_of_the_tools_that_are_connected_and_no_others(name: str, style: Any) -> None:
    offered = Agent(Scripted(), InProcess(wait, crop), format=get_format(name), prompt=style).system
    assert offered.index("crop") < offered.index("wait"), "in a fixed order"
    assert "crash" not in offered
    bare = Agent(Scripted(), NoTools(), format=get_format(name), prompt=style).system
    assert "crop" not in bare
    assert "nswer" in bare


@pytest.mark.parametrize("name", ["openthinkimg", "hermes"])
def test_a_system_prompt_of_ones_own_keeps_tools_and_syntax(name: str) -> None:
    def system(words: str | None, *tools: Any, prompt: Any = "full") -> str:
        return Agent(Scripted(), InProcess(*tools), format=get_format(name), prompt=prompt, words=words).system

    ours = system(None, crop)
    declared = ours[ours.index("Images are named") :]
    assert system("You see {for} yourself.", crop) == f"You see {{for}} yourself.\n\n{declared}"
    assert system("See.\n{tools}\nBe brief.", crop) == f"See.\n{declared}\nBe brief."
    assert system("See. {tools}", crop, prompt="compact") == "See. Tools: crop()"
    assert system("See.").startswith("See.\n\nReply with\n"), "how to answer is said without tools, too"


def test_hermes_runs_through_the_same_loop() -> None:
    called = '<tool_call>\n{"name": "crop", "arguments": {"image": "img_1"}}\n</tool_call>'
    made = run(Scripted(called, "<answer>7</answer>"), InProcess(crop), format=get_format("hermes"))
    assert made.turns[3].message.text == "<tool_response>\ncrop: 4x3 img_2:\n</tool_response>"
    assert made.answer == "7"


def test_many_episodes_share_one_agent() -> None:
    agent = Agent(Scripted(says(Call("crop", {"image": "img_1"})), answers("7")), InProcess(crop))
    tasks = [Task(f"t{n}", f"{n}?", (picture(),)) for n in range(20)]

    async def all_of_them() -> list[Trajectory]:
        return await asyncio.gather(*(agent.run(task) for task in tasks))

    for task, made in zip(tasks, asyncio.run(all_of_them()), strict=True):
        assert (made.meta["task"], made.question, list(made.images)) == (task.id, task.question, ["img_1", "img_2"])


@pytest.mark.parametrize(
    ("question", "shown"),
    [
        ("Which is taller?", ["img_1", "img_2", "Which is taller?"]),
        ("Is <image> taller than <image>?", ["Is ", "img_1", " taller than ", "img_2", "?"]),
        ("<image><image>Which?", ["img_1", "img_2", "Which?"]),
        ("What is <image>?", ["img_1", "img_2", "What is <image>?"]),
    ],
)
def test_pictures_stand_where_the_question_says(question: str, shown: list[str]) -> None:
    asked = Agent(Scripted(answers("")), NoTools()).start(Task("t", question, (picture(), picture())))
    blocks = asked.turns[1].message.content
    assert [block.handle if isinstance(block, ImageBlock) else block.text for block in blocks] == shown
    assert asked.question == question
