"""vLLM as a `Generator`: in this process (`engine`, `generator`) or behind HTTP (`server`)."""
