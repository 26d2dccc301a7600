"""Markdown tables."""

from collections.abc import Sequence


def markdown_rows(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table, line by line: the first column to the left, the others to the right."""
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (head, rule, *body)]
