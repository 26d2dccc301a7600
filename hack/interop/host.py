"""Run in an environment with `openai-agents`, unmodified: an MCP host on the gateway's tools, whose model is the
gateway's too, and the `openai` client. Prints one JSON object.

    PYTHON host.py GATEWAY PICTURE
"""

import asyncio
import base64
import json
import sys
from importlib.metadata import version
from pathlib import Path

from agents import Agent, ModelSettings, OpenAIChatCompletionsModel, Runner, set_tracing_disabled
from agents.mcp import MCPServerStreamableHttp
from openai import AsyncOpenAI, OpenAI

MODEL = "looker"


async def hosted(gateway: str, url: str) -> dict[str, object]:
    """The host lists the gateway's tools, offers them to its model, runs what that calls, and shows it the results."""
    model = OpenAIChatCompletionsModel(MODEL, AsyncOpenAI(base_url=f"{gateway}/v1", api_key="none", max_retries=0))
    settings = ModelSettings(extra_body={"thinkimg": {"tools": []}})  # the tools are the host's, not the model's own
    async with MCPServerStreamableHttp(
        {"url": f"{gateway}/mcp", "timeout": 60}, client_session_timeout_seconds=60
    ) as mcp:
        agent = Agent("host", model=model, model_settings=settings, mcp_servers=[mcp])
        parts = [
            {"type": "input_image", "image_url": url, "detail": "auto"},
            {"type": "input_text", "text": "Crop it through MCP. Which colour has it?"},
        ]
        result = await Runner.run(agent, [{"role": "user", "content": parts}])
        items = [type(item).__name__ for item in result.new_items]
        tools = [tool.name for tool in await mcp.list_tools()]
    return {"tools": tools, "items": items, "answer": result.final_output}


def asked(gateway: str, url: str) -> dict[str, object]:
    client = OpenAI(base_url=f"{gateway}/v1", api_key="none", max_retries=0)
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "Which colour has it?"}]
    reply = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": parts}])
    stream = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": parts}], stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    return {
        "answer": reply.choices[0].message.content,
        "tokens": reply.usage.total_tokens,
        "streamed": "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices),
        "streamed_tokens": chunks[-1].usage.total_tokens,
    }


def main() -> None:
    gateway, picture = sys.argv[1:]
    set_tracing_disabled(True)
    url = f"data:image/png;base64,{base64.b64encode(Path(picture).read_bytes()).decode()}"
    versions = {name: version(name) for name in ("openai", "openai-agents", "mcp")}
    print(json.dumps({"versions": versions, "openai": asked(gateway, url), "mcp": asyncio.run(hosted(gateway, url))}))


main()
