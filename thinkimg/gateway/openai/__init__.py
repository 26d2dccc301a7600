"""`POST /v1/chat/completions`: model and tools together, as one model that any OpenAI client can use.

The tool loop runs here (`thinkimg.agent`); the caller sees the answer. With `"thinkimg": {"trace": true}` in the
request it also sees what the model said, which tools it called and what came back.
"""

from thinkimg.gateway.openai.face import ChatFace
from thinkimg.gateway.openai.models import ServedModel, upstream_model
from thinkimg.gateway.openai.request import ChatRequest

__all__ = ["ChatFace", "ChatRequest", "ServedModel", "upstream_model"]
