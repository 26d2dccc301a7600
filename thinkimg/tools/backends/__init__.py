"""The engines behind the tools. Heavy libraries are imported inside functions, when a tool is loaded."""
