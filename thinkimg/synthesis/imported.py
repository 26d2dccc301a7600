"""Other people's conversations as trajectories, worded as this run's agent would have had them.

Calls are read in OpenThinkIMG's syntax and in Hermes'. A conversation of one question and one reply in plain words
(LLaVA's) is an answer without calls.
"""

import re
from collections.abc import Sequence

from thinkimg.agent.agent import Agent
from thinkimg.agent.formats import Hermes, OpenThinkIMG, Parsed, Returned
from thinkimg.data.sharegpt import Conversation, Said
from thinkimg.errors import ModelError, UserError
from thinkimg.message import TextBlock, ToolCallBlock, ToolResultBlock
from thinkimg.trajectory import Task, Trajectory

_QUESTION = "Question:"
_OBSERVATION = re.compile(r"^\s*OBSERVATION:?\s*(Execution result of \w+:)?\s*", re.IGNORECASE)
_RESPONSE = re.compile(r"</?tool_response>\s*")
_TAGS = re.compile(r"<(tool_call|answer)>")
_CALLS = re.compile(r"""<(tool_call|answer)>|"actions"\s*:""")


def trajectory_of(conversation: Conversation, agent: Agent) -> Trajectory:
    """A trajectory of `agent`: its own instructions, the conversation's question (what stands behind "Question:"), its
    turns in the agent's syntax, its observations as the agent words them.

    Raises:
        ValueError: a turn of the model that does not parse; no answer at the end, or one before it.
    """
    first, *rest = conversation.messages
    question, imported = first.behind(_QUESTION), {"imported": conversation.name}
    task = Task(conversation.name, question, first.images, conversation.answer, imported)
    try:
        trajectory = agent.start(task)
    except UserError as error:
        raise ValueError(str(error)) from None
    calls: list[ToolCallBlock] = []
    for position, message in enumerate(rest, start=1):
        if message.role == "user":
            _observe(trajectory, message, calls, agent)
            continue
        parsed = _plain(message) if _is_plain(rest) else _parse(message, position)
        if (parsed.answer is None) == (message is rest[-1]):
            raise ValueError(f"message {position}: {'no answer at the end' if parsed.answer is None else 'it goes on'}")
        calls = _record(trajectory, parsed, position, agent)
        trajectory.answer = parsed.answer
    trajectory.status = "answered"
    return trajectory


def _is_plain(rest: Sequence[Said]) -> bool:
    """One reply, in words."""
    return len(rest) == 1 and not _CALLS.search(rest[0].text)


def _plain(message: Said) -> Parsed:
    """What stands behind its thinking, if it thinks, is the answer."""
    thought, _, answer = message.text.rpartition("</think>")
    if not answer.strip():
        raise ValueError("message 1: no answer at the end")
    return Parsed(thought.replace("<think>", "").strip(), answer=answer.strip())


def _parse(message: Said, position: int) -> Parsed:
    syntax = Hermes() if _TAGS.search(message.text) else OpenThinkIMG()
    try:
        return syntax.parse(message.text)
    except ModelError as error:
        raise ValueError(f"message {position}: {error}") from None


def _record(trajectory: Trajectory, parsed: Parsed, position: int, agent: Agent) -> list[ToolCallBlock]:
    calls = [
        ToolCallBlock(id=f"call_{position}_{number}", name=call.name, arguments=call.arguments)
        for number, call in enumerate(parsed.calls, start=1)
    ]
    turn = trajectory.add("assistant", TextBlock(text=agent.format.write(parsed)))
    turn.message.content.extend(calls)
    return calls


def _observe(trajectory: Trajectory, message: Said, calls: list[ToolCallBlock], agent: Agent) -> None:
    """One message holds the results of all calls of a turn; it is booked on the last of them."""
    handles = tuple(trajectory.add_image(image) for image in message.images)
    text = _RESPONSE.sub("", _OBSERVATION.sub("", message.text)).strip()
    result = ToolResultBlock(call_id=calls[-1].id, name=calls[-1].name, text=text)
    trajectory.add("tool", *agent.format.observation([Returned(result, handles)]))
