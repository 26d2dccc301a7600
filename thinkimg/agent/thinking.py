"""A reply without its thinking, in the syntaxes that models think in. What is quoted in a thought is neither called nor
answered."""

import re
from dataclasses import dataclass
from itertools import pairwise

TAGS = (
    ("<think>", "</think>"),  # DeepSeek-R1, Qwen3
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),  # Seed-OSS
    ("<|begin_of_thought|>", "<|end_of_thought|>"),  # LLaVA-o1 and Sky-T1
    ("[THINK]", "[/THINK]"),  # Magistral
    ("◁think▷", "◁/think▷"),  # Kimi-VL
)
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)[^<]*<\|message\|>")  # gpt-oss
_END_OF_CHANNEL = re.compile(r"<\|(?:end|return|call)\|>")
_BLOCK = re.compile(r"<(answer|tool_call)>(?:(?!<\1>).)*?</\1>", re.DOTALL)


@dataclass(frozen=True)
class Reply:
    """Attributes:
    thought: the thinking, without its tags.
    said: what stands behind it.
    closed: whether the thinking came to its end; nothing is `said` otherwise.
    """

    thought: str
    said: str
    closed: bool = True


def without_thinking(text: str) -> Reply:
    """The opening tag may stand in the prompt, and tags may be quoted inside the thinking: it ends with its last
    closing tag. A tag inside a whole `<answer>` or `<tool_call>` that no thinking is around is part of what is said."""
    blocks = _blocks(text)
    channels = [one for one in _CHANNEL.finditer(text) if not _inside(one.start(), blocks)]
    if channels:
        return _of_channels(text, channels)
    firsts = [
        (found, tags) for tags in TAGS for tag in tags if (found := _first_outside(tag, text, blocks)) is not None
    ]
    if not firsts:
        return Reply("", text)
    opening, closing = min(firsts)[1]
    cut = _end_of_thinking(text, closing)
    if _first_outside(opening, text, _blocks(text, cut), cut) is not None:
        return Reply(_without_tags(text, opening, closing), "", closed=False)
    return Reply(_without_tags(text[:cut], opening, closing), text[cut:])


def _end_of_thinking(text: str, closing: str) -> int:
    ends = [found.span() for found in _tag(closing).finditer(text)]
    blocks = _blocks(text, ends[0][1]) if ends else []
    return max((end for start, end in ends if not _inside(start, blocks)), default=0)


def _of_channels(text: str, channels: list[re.Match[str]]) -> Reply:
    last = channels[-1]
    thought = "\n".join(
        _END_OF_CHANNEL.split(text[one.end() : following.start()])[0].strip() for one, following in pairwise(channels)
    )
    said = _END_OF_CHANNEL.split(text[last.end() :])[0]
    if last[1] == "analysis":
        return Reply(f"{thought}\n{said}".strip(), "", closed=False)
    return Reply(thought, said)


def _tag(tag: str) -> re.Pattern[str]:
    return re.compile(re.escape(tag), re.IGNORECASE)


def _blocks(text: str, start: int = 0) -> list[tuple[int, int]]:
    return [block.span() for block in _BLOCK.finditer(text, start)]


def _first_outside(tag: str, text: str, blocks: list[tuple[int, int]], start: int = 0) -> int | None:
    return next(
        (found.start() for found in _tag(tag).finditer(text, start) if not _inside(found.start(), blocks)), None
    )


def _inside(position: int, spans: list[tuple[int, int]]) -> bool:
    return any(start <= position < end for start, end in spans)


def _without_tags(text: str, opening: str, closing: str) -> str:
    return re.sub(f"{re.escape(opening)}|{re.escape(closing)}", "", text, flags=re.IGNORECASE).strip()
