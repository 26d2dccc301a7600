"""The words of a question made of its row's columns: `{question}\\n{options}`."""

import json
from collections.abc import Mapping
from string import Formatter
from typing import Any

from thinkimg.data.choices import lettered


class Template:
    """Text in which `{column}` stands for what the row says there, `{question}` for the question; `{{` is a brace.

    A text or number stands as it is, a list or object of texts as a lettered line each, anything else as JSON.

    Raises:
        ValueError: braces that do not fit, or no column in them.
    """

    def __init__(self, text: str) -> None:
        try:
            self._pieces = [(before, name) for before, name, _, _ in Formatter().parse(text)]
        except ValueError as error:
            raise ValueError(f"the template cannot be read: {error}; a brace itself is written {{{{ or }}}}") from None
        if any(name == "" for _, name in self._pieces):
            raise ValueError("the template has {} without the name of a column")

    def fill(self, question: str, columns: Mapping[str, Any]) -> str:
        """Raises `ValueError`: there is no such column."""
        known = {**columns, "question": question}
        return "".join(before + ("" if name is None else _shown(name, known)) for before, name in self._pieces)


def _shown(name: str, known: Mapping[str, Any]) -> str:
    if name not in known:
        raise ValueError(f"the template names {{{name}}}, and the row has {', '.join(known)}")
    value = known[name]
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple | Mapping) and value:
        texts = value.values() if isinstance(value, Mapping) else value
        if all(isinstance(one, str) for one in texts):
            return "\n".join(f"{letter}. {text}" for letter, text in lettered(value).items())
    return json.dumps(value, ensure_ascii=False)
