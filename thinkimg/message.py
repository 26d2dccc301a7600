"""Messages and their content blocks: what is said, without tokens. Every syntax and every API is converted to this."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Role = Literal["system", "user", "assistant", "tool"]


class Block(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TextBlock(Block):
    type: Literal["text"] = "text"
    text: str


class ImageBlock(Block):
    """An image at this place of the conversation. The bytes are in the trajectory, under `handle`."""

    type: Literal["image"] = "image"
    handle: str


class ToolCallBlock(Block):
    """A call the model wrote. `arguments` names images by handle."""

    type: Literal["tool_call"] = "tool_call"
    id: str
    name: str
    arguments: dict[str, Any]


class ToolResultBlock(Block):
    """What came back of one call.

    Attributes:
        text: what the model reads.
        data: the result as numbers (boxes, scores, masks; coordinates in percent), for viewers and rewards.
        error: None, or the `kind` of a `ModelError`.
        seconds: time the call took as the caller saw it.
        cached: answered from the client's cache, no request was sent.
    """

    type: Literal["tool_result"] = "tool_result"
    call_id: str
    name: str
    text: str
    data: dict[str, Any] = Field(default_factory=dict)
    error: str | None = None
    seconds: float = 0.0
    cached: bool = False


Content = Annotated[TextBlock | ImageBlock | ToolCallBlock | ToolResultBlock, Field(discriminator="type")]


class Message(BaseModel):
    """One message. An assistant's text is kept verbatim in its text block; calls parsed from it follow as blocks."""

    model_config = ConfigDict(extra="forbid")

    role: Role
    content: list[Content]

    @property
    def text(self) -> str:
        """The text blocks (and texts of tool results), joined."""
        return "".join(block.text for block in self.content if isinstance(block, TextBlock | ToolResultBlock))

    @property
    def images(self) -> list[str]:
        """Handles of the images in this message, in order."""
        return [block.handle for block in self.content if isinstance(block, ImageBlock)]

    @property
    def tool_calls(self) -> list[ToolCallBlock]:
        return [block for block in self.content if isinstance(block, ToolCallBlock)]

    @property
    def tool_results(self) -> list[ToolResultBlock]:
        return [block for block in self.content if isinstance(block, ToolResultBlock)]
