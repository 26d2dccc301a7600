"""Does a trajectory's record tell the truth? Its calls are run again, and what comes back is compared."""

from dataclasses import dataclass

from thinkimg.agent.tools import Tools
from thinkimg.errors import ModelError
from thinkimg.image import Image
from thinkimg.message import ToolCallBlock, ToolResultBlock
from thinkimg.trajectory import Trajectory


@dataclass(frozen=True)
class Difference:
    """One call whose result is another now.

    Attributes:
        turn: number of the assistant's turn, from 0.
        tool: name of the tool, as it was called.
        what: what is different: text, data, error or picture.
    """

    turn: int
    tool: str
    what: str


@dataclass(frozen=True)
class Replayed:
    """How many calls were run again, and those whose results differ."""

    calls: int
    differences: tuple[Difference, ...]


async def replay(trajectory: Trajectory, tools: Tools) -> Replayed:
    """Run every call again, with the pictures that there were at its time.

    Raises:
        InfrastructureError: a tool does not answer now.
    """
    known: dict[str, Image] = {}
    calls = 0
    differences: list[Difference] = []
    for number, turn in enumerate(trajectory.turns):
        known |= {name: trajectory.images[name] for name in turn.message.images}
        if not turn.message.tool_calls or number + 1 == len(trajectory.turns):
            continue
        observed = trajectory.turns[number + 1].message
        results = {result.call_id: result for result in observed.tool_results}
        shown = {trajectory.images[name].sha256 for name in observed.images}
        for call in turn.message.tool_calls:
            if call.id not in results:
                continue
            calls += 1
            what = await _difference(call, results[call.id], shown, tools, known)
            if what is not None:
                differences.append(Difference(number, call.name, what))
    return Replayed(calls, tuple(differences))


async def _difference(
    call: ToolCallBlock, result: ToolResultBlock, shown: set[str], tools: Tools, known: dict[str, Image]
) -> str | None:
    try:
        outcome = await tools.call(call.name, call.arguments, known)
    except ModelError as error:
        return None if (result.error, result.text) == (error.kind, f"ERROR: {error}") else f"now it fails: {error}"
    again = outcome.result
    if result.error is not None:
        return f"it failed then ({result.error}), and does not now"
    if (again.text, again.data) != (result.text, result.data):
        return f"{again.text!r} now, {result.text!r} then"
    return None if all(image.sha256 in shown for image in again.images) else "another picture"
