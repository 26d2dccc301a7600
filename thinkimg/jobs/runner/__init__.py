"""A whole ToolRLJob on this machine: its stages as processes, one after another."""
