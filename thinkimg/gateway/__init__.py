"""One address for outsiders: tools API, OpenAI-compatible chat, MCP, and OpenThinkIMG's controller and workers."""
