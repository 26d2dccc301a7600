"""Other people's conversations as trajectories, worded as this run's agent would have had them."""

import re

from thinkimg.agent.agent import Agent
from thinkimg.agent.formats import OpenThinkIMG, Parsed, Returned
from thinkimg.data.sharegpt import Conversation, Said
from thinkimg.errors import ModelError, UserError
from thinkimg.message import TextBlock, ToolCallBlock, ToolResultBlock
from thinkimg.trajectory import Task, Trajectory

_QUESTION = "Question:"
_OBSERVATION = re.compile(r"^\s*OBSERVATION:?\s*(Execution result of \w+:)?\s*", re.IGNORECASE)


def trajectory_of(conversation: Conversation, agent: Agent) -> Trajectory:
    """A trajectory of `agent`: its own instructions, the conversation's question (what stands behind "Question:"), its
    turns in the agent's syntax, its observations as the agent words them.

    Raises:
        ValueError: a turn of the model that does not parse; no answer at the end, or one before it.
    """
    first, *rest = conversation.messages
    question = first.text.rpartition(_QUESTION)[2].strip()
    task = Task(conversation.name, question, first.images, conversation.answer, {"imported": conversation.name})
    try:
        trajectory = agent.start(task)
    except UserError as error:
        raise ValueError(str(error)) from None
    calls: list[ToolCallBlock] = []
    for position, message in enumerate(rest, start=1):
        if message.role == "user":
            _observe(trajectory, message, calls, agent)
            continue
        parsed = _parse(message, position)
        if (parsed.answer is None) == (message is rest[-1]):
            raise ValueError(f"message {position}: {'no answer at the end' if parsed.answer is None else 'it goes on'}")
        calls = _record(trajectory, parsed, position, agent)
        trajectory.answer = parsed.answer
    trajectory.status = "answered"
    return trajectory


def _parse(message: Said, position: int) -> Parsed:
    try:
        return OpenThinkIMG().parse(message.text)
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
    text = _OBSERVATION.sub("", message.text)
    result = ToolResultBlock(call_id=calls[-1].id, name=calls[-1].name, text=text)
    trajectory.add("tool", *agent.format.observation([Returned(result, handles)]))
