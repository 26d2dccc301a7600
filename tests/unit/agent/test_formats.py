"""Tool-call syntaxes: what is written is read back, and what is malformed is answered with the remedy."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinkimg.agent.formats import DEEPEST, Call, Format, Hermes, OpenThinkIMG, Parsed, Returned, get_format
from thinkimg.errors import ModelError, UserError
from thinkimg.message import ImageBlock, Message, ToolResultBlock
from thinkimg.trajectory import Trajectory

ORIGINAL, HERMES = OpenThinkIMG(), Hermes()
RIGHT = {
    "openthinkimg": (
        'Write one JSON object: {"thought": "...", "actions": [{"name": "...", "arguments": {...}}]}; '
        'to answer: {"name": "Terminate", "arguments": {"ans": "..."}}.'
    ),
    "hermes": (
        'Write <tool_call>\n{"name": "...", "arguments": {...}}\n</tool_call>, or <answer>...</answer> to answer.'
    ),
}

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
untagged = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<[◁"), max_size=20).map(str.strip)
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
calls = st.builds(
    Call, texts.filter(lambda name: name.lower() != "terminate"), st.dictionaries(texts, values, max_size=3)
)
some_calls = st.lists(calls, min_size=1, max_size=3).map(tuple)


@given(st.builds(Parsed, texts, some_calls) | st.builds(Parsed, texts, answer=texts))
def test_the_originals_syntax_reads_what_it_wrote(parsed: Parsed) -> None:
    assert ORIGINAL.parse(ORIGINAL.write(parsed)) == parsed


@given(st.builds(Parsed, untagged, some_calls) | st.builds(Parsed, untagged, answer=untagged.filter(bool)))
def test_hermes_reads_what_it_wrote(parsed: Parsed) -> None:
    assert HERMES.parse(HERMES.write(parsed)) == parsed


@given(texts | st.text(st.sampled_from(list('{}[]":, \\ud8<>/acinostklm_')), max_size=60))
@pytest.mark.parametrize("format", [ORIGINAL, HERMES], ids=lambda format: format.name)
def test_any_text_is_either_read_or_explained(format: Format, text: str) -> None:
    try:
        parsed = format.parse(text)
    except ModelError as caught:
        error = caught
    else:
        assert bool(parsed.calls) != (parsed.answer is not None)
        return
    assert error.kind == "malformed_call"
    assert str(error).endswith(RIGHT[format.name])


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        # around and inside: what models do
        ('I look. {"thought": "t", "actions": [{"name": "OCR", "arguments": {"image": "img_1"}}]} Done.',
         Parsed("t", (Call("OCR", {"image": "img_1"}),))),
        ('```json\n{"actions": [{"name": "OCR"}]}\n```', Parsed("", (Call("OCR", {}),))),
        # the original's tolerance: a broken thought does not cost the actions
        ('{"thought": "he said "no" to me", "actions": [{"name": "Crop", "arguments": {"x1": 1}}]}',
         Parsed("", (Call("Crop", {"x1": 1}),))),
        ('{"thought": "line\nbreak", "actions": [{"name": "Terminate", "arguments": {"ans": "4"}}]}',
         Parsed("", answer="4")),
        ('{"thought": "open, "actions" : [{"name": "OCR"}]', Parsed("", (Call("OCR", {}),))),
        # several actions are all run
        ('{"actions": [{"name": "OCR"}, {"name": "Point"}]}', Parsed("", (Call("OCR", {}), Call("Point", {})))),
        # answers
        ('{"actions": [{"name": "terminate", "arguments": {"answer": 7}}]}', Parsed("", answer="7")),
        ('{"actions": [{"name": "Terminate", "arguments": {"ans": 0.5}}]}', Parsed("", answer="0.5")),
        ('{"actions": [{"name": "Terminate", "arguments": {"ans": ""}}]}', Parsed("", answer="")),
        # half a surrogate pair could be neither stored nor sent
        (r'{"actions": [{"name": "Terminate", "arguments": {"ans": "\ud800 \ud83d\ude00"}}]}',
         Parsed("", answer="? \N{GRINNING FACE}")),
    ],
)  # fmt: skip
def test_the_originals_syntax_is_read_as_models_write_it(text: str, parsed: Parsed) -> None:
    assert ORIGINAL.parse(text) == parsed


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "There is no JSON object with 'actions' in your reply."),
        ("The answer is 7.", "There is no JSON object with 'actions' in your reply."),
        ("[]", "There is no JSON object with 'actions' in your reply."),
        ('{"thought": "hm"}', "There is no JSON object with 'actions' in your reply."),
        ('{"thought": "hm", "actions": "OCR"}', "'actions' must be a list with at least one action."),
        ('{"actions": []}', "'actions' must be a list with at least one action."),
        ('{"actions": null}', "'actions' must be a list with at least one action."),
        ('{"actions": ["OCR"]}', "A call must be an object with a string 'name'."),
        ('{"actions": [{}]}', "A call must be an object with a string 'name'."),
        ('{"actions": [{"name": 5}]}', "A call must be an object with a string 'name'."),
        ('{"actions": [{"name": "OCR", "arguments": "img_1"}]}', "The 'arguments' of OCR must be an object."),
        ('{"actions": [{"name": "OCR", "arguments": null}]}', "The 'arguments' of OCR must be an object."),
        ('{"actions": [{"name": "OCR"}, {"name": "Terminate", "arguments": {"ans": "7"}}]}',
         "Terminate must be the only action of its turn."),
        ('{"actions": [{"name": "Terminate"}]}', "Terminate needs the argument 'ans' with the answer as text."),
        ('{"actions": [{"name": "Terminate", "arguments": {"ans": true}}]}',
         "Terminate needs the argument 'ans' with the answer as text."),
        ('{"actions": [{"name": "Terminate", "arguments": {"ans": ["7"]}}]}',
         "Terminate needs the argument 'ans' with the answer as text."),
        ('{"thought": "a", "actions": [{"name": OCR}]}',
         "The list of 'actions' is not valid JSON (Expecting value: line 1 column 39 (char 38))."),
        ('{"actions": ' + "[" * 100_000, "The list of 'actions' is not valid JSON (it is nested too deeply)."),
        ('{"a":' * 100_000, "There is no JSON object with 'actions' in your reply."),
    ],
)  # fmt: skip
def test_what_is_wrong_in_the_originals_syntax_is_said(text: str, problem: str) -> None:
    with pytest.raises(ModelError) as raised:
        ORIGINAL.parse(text)
    assert str(raised.value) == f"{problem} {RIGHT['openthinkimg']}"
    assert raised.value.kind == "malformed_call"


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ('<think>hm</think>\n<tool_call>\n{"name": "OCR", "arguments": {"image": "img_1"}}\n</tool_call>',
         Parsed("hm", (Call("OCR", {"image": "img_1"}),))),
        ('<tool_call>{"name": "A"}</tool_call><tool_call>{"name": "B"}</tool_call>',
         Parsed("", (Call("A", {}), Call("B", {})))),
        ("I see.\n<answer> 7 </answer>", Parsed("I see.", answer="7")),
        ("<think>sum: 3+4</think> 7", Parsed("", answer="7")),
        ("sum: <tool_call> or 3+4\n</think>\n\n7", Parsed("", answer="7")),  # the prompt ended with <think>
        ("It is 7.", Parsed("", answer="It is 7.")),
        ('<tool_call>{"name": "A"}</tool_call><answer>7</answer>', Parsed("", (Call("A", {}),))),
    ],
)  # fmt: skip
def test_hermes_is_read_as_models_write_it(text: str, parsed: Parsed) -> None:
    assert HERMES.parse(text) == parsed


OCR, SEVEN = Call("OCR", {}), '{"actions": [{"name": "Terminate", "arguments": {"ans": "7"}}]}'
A_CALL = '<tool_call>{"name": "OCR"}</tool_call>'


@pytest.mark.parametrize(
    ("thinking", "thought"),
    [
        ("<think>hm</think>", "hm"),
        ("hm</think>", "hm"),  # the prompt ended with <think>
        ("<THINK>hm</Think>", "hm"),
        ("<thinking>hm</thinking>", "hm"),
        ("<thought>hm</thought>", "hm"),
        ("<reasoning>hm</reasoning>", "hm"),
        ("<seed:think>hm</seed:think>", "hm"),
        ("[THINK]hm[/THINK]", "hm"),
        ("◁think▷hm◁/think▷", "hm"),
        ("<|begin_of_thought|>hm<|end_of_thought|>", "hm"),
        ("<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>", "hm"),
        # quoted inside the thinking
        ("<think>I shall write <answer>...</answer> then</think>", "I shall write <answer>...</answer> then"),
        (f"<think>as {A_CALL} would</think>", f"as {A_CALL} would"),
        ("<think>as <tool_call> would</think>", "as <tool_call> would"),
        ("<think>behind </think> I write <answer>1 </think>", "behind  I write <answer>1"),
        ("<think>one</think><think>two</think>", "onetwo"),
        (f"{SEVEN.replace('7', '1')} or so</think>", f"{SEVEN.replace('7', '1')} or so"),
    ],
)
def test_thinking_is_cut_off_before_anything_is_read(thinking: str, thought: str) -> None:
    assert HERMES.parse(f"{thinking}<answer>7</answer>") == Parsed(thought, answer="7")
    assert HERMES.parse(f"{thinking}\n\n7") == Parsed("", answer="7")
    assert HERMES.parse(f"{thinking}{A_CALL}") == Parsed(thought, (OCR,))
    assert ORIGINAL.parse(f"{thinking}{SEVEN}") == Parsed("", answer="7")


@pytest.mark.parametrize(
    "text",
    [
        "<think>hm",
        "<think>It is <answer>7</answer>, or",
        f"<think>I call {A_CALL}",
        f"<think>I write {SEVEN}",
        "◁think▷hm",
        "<think>a</think>No. <think>b",
        "<|channel|>analysis<|message|>It is <answer>7</answer>",
    ],
)
@pytest.mark.parametrize("format", [ORIGINAL, HERMES], ids=lambda format: format.name)
def test_thinking_that_does_not_end_is_no_answer(format: Format, text: str) -> None:
    with pytest.raises(ModelError, match="Your thinking does not end") as raised:
        format.parse(text)
    assert str(raised.value).endswith(RIGHT[format.name])


def test_tags_that_are_said_are_no_thinking() -> None:
    assert HERMES.parse("<think>a</think><answer>the tag </think></answer>").answer == "the tag </think>"
    assert HERMES.parse("<answer>between <think> and </think></answer>").answer == "between <think> and </think>"
    said = '{"thought": "<think>hm</think>", "actions": [{"name": "Terminate", "arguments": {"ans": "<think>"}}]}'
    assert ORIGINAL.parse(said) == Parsed("<think>hm</think>", answer="<think>")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<answer>1</answer> No: <answer>7</answer>", "7"),
        ("<answer>the form <answer>7</answer>", "7"),
        ("So <answer>7", "7"),
    ],
)
def test_the_last_answer_counts(text: str, answer: str) -> None:
    assert HERMES.parse(text).answer == answer


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "Your reply is empty."),
        ("<think>hm</think>", "Your reply is empty."),
        ("<answer> </answer>", "Your reply is empty."),
        ('<tool_call>{"name": "OCR"}', "A <tool_call> is not closed."),
        ('<tool_call>{"name": "A"}</tool_call><tool_call>', "A <tool_call> is not closed."),
        ("<tool_call></tool_call>",
         "A <tool_call> holds no valid JSON (Expecting value: line 1 column 1 (char 0))."),
        ("<tool_call>OCR(img_1)</tool_call>",
         "A <tool_call> holds no valid JSON (Expecting value: line 1 column 1 (char 0))."),
        ('<tool_call>{"name": "A"} {"name": "B"}</tool_call>', "A <tool_call> holds more than one JSON object."),
        ('<tool_call>["A"]</tool_call>', "A call must be an object with a string 'name'."),
        ('<tool_call>{"name": "A", "arguments": "{}"}</tool_call>', "The 'arguments' of A must be an object."),
        (f"<tool_call>{'[' * 100_000}</tool_call>",
         "A <tool_call> holds no valid JSON (it is nested too deeply)."),
    ],
)  # fmt: skip
def test_what_is_wrong_in_hermes_is_said(text: str, problem: str) -> None:
    with pytest.raises(ModelError) as raised:
        HERMES.parse(text)
    assert str(raised.value) == f"{problem} {RIGHT['hermes']}"
    assert raised.value.kind == "malformed_call"


@pytest.mark.parametrize("levels", [DEEPEST - 10, DEEPEST + 1, 300])
def test_what_a_format_accepts_a_record_can_hold(levels: int) -> None:
    arguments: Any = {"y": json.loads("[" * levels + "]" * levels)}
    text = ORIGINAL.write(Parsed("", (Call("OCR", arguments),)))
    if levels > DEEPEST:
        with pytest.raises(ModelError, match="nested too deeply"):
            ORIGINAL.parse(text)
        return
    made = Trajectory(question="?", meta=ORIGINAL.parse(text).calls[0].arguments)
    assert Trajectory.model_validate_json(made.model_dump_json()).meta == arguments


def returned(name: str, text: str, *handles: str) -> Returned:
    return Returned(ToolResultBlock(call_id="1", name=name, text=text), handles)


@pytest.mark.parametrize(
    ("format", "text"),
    [
        (ORIGINAL, "OBSERVATION:\nOCR: 7\nCrop: cut img_2: img_3:"),
        (HERMES, "<tool_response>\nOCR: 7\nCrop: cut img_2: img_3:\n</tool_response>"),
    ],
    ids=["openthinkimg", "hermes"],
)
def test_an_observation_names_each_tool_and_each_picture(format: Format, text: str) -> None:
    blocks = format.observation([returned("OCR", "7"), returned("Crop", "cut", "img_2", "img_3")])
    message = Message(role="tool", content=blocks)
    assert message.text == text
    assert message.images == ["img_2", "img_3"]
    assert [result.name for result in message.tool_results] == ["OCR", "Crop"]
    before = blocks[blocks.index(ImageBlock(handle="img_3")) - 1]
    assert before.type == "text"
    assert before.text == " img_3:", "a picture stands behind its name"


def test_formats_are_found_by_name() -> None:
    assert isinstance(get_format("hermes"), Hermes)
    assert isinstance(get_format("openthinkimg"), OpenThinkIMG)
    with pytest.raises(UserError, match="unknown format 'xml'; there are openthinkimg, hermes"):
        get_format("xml")


def test_a_thought_that_is_null_is_no_thought() -> None:
    text = '{"thought": null, "actions": [{"name": "Terminate", "arguments": {"ans": "7"}}]}'
    assert OpenThinkIMG().parse(text) == Parsed("", answer="7")
