"""`preset://tiny`: the embedded model. Its tokenizer is made for the demo's words and call syntax, and its base is
pre-trained here on text; both from a seed, so that runs of different seeds share nothing."""

import hashlib
import inspect
import itertools
import json
import os
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from thinkimg.agent.formats import Format, Parsed
from thinkimg.agent.prompts import system_prompt
from thinkimg.data import charts
from thinkimg.data.chart_drawing import PALETTES
from thinkimg.jsonfile import write
from thinkimg.message import Message, TextBlock
from thinkimg.models import tiny
from thinkimg.models.families.qwen_vl import QwenVL
from thinkimg.models.image_features import ImageFeatures
from thinkimg.results import BasePretraining
from thinkimg.synthesis.planner import evidence, scripted_texts
from thinkimg.tools.tool import ToolSchema
from thinkimg.training import pretraining
from thinkimg.training.collator import Collator, Sample

STEPS = 600
BATCH = 64
FIRST_LABELS = 6
WORDS = charts.DIFFICULTIES[1].words
LABELS = (*charts.SHORT_LABELS[:WORDS], *charts.LONG_LABELS[:WORDS])
TITLES = charts.TITLES[:WORDS]
_BLANK = "@@"
_QUESTION_PIECES = (
    "What is the value of ", "How many ", " are there?", "Which is ", ", the ", " or the ", " bar", " slice", "bars",
    "points", "slices", "panels", " in ", "taller", "longer", "larger",
)  # fmt: skip
_RESULT_PIECES = (
    'Zoomed into "', '" (left).', '" (right).', '" (top).', '" (bottom).', ": x=", ", y=",
    "Drew a horizontal line at y=", "ERROR: ",
    "There is no JSON object with 'actions' in your reply. ", "Your reply was cut off after 16 tokens. Be shorter.",
    "The list of 'actions' is not valid JSON (", ": line 1 column ", "Terminate must be the only action of its turn. ",
    "There is no image ", "Images: ",
)  # fmt: skip


def cached_base(
    cache: Path, seed: int, schemas: Sequence[ToolSchema], format: Format, progress: Callable[[int, float], None]
) -> Path:
    """The folder of the pre-trained base for `seed`, made if it is not cached.

    The key covers everything that decides the result, this code included. Beside the model, `base.json` says how long
    it took.
    """
    sources = "".join(inspect.getsource(module) for module in (tiny, charts, pretraining, sys.modules[__name__]))
    prompts = [system_prompt(schemas, format, "compact"), *scripted_texts(format, _BLANK)]
    key = hashlib.sha256(json.dumps([sources, prompts, seed]).encode()).hexdigest()[:16]
    folder = cache / f"tiny-{key}"
    if not (folder / "base.json").exists():
        partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
        build_base(partial, seed, schemas, format, progress)
        if (folder / "base.json").exists():  # another process has made it meanwhile, and its run may be reading it
            shutil.rmtree(partial)
        else:
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
    return folder


def build_base(
    folder: Path, seed: int, schemas: Sequence[ToolSchema], format: Format, progress: Callable[[int, float], None]
) -> None:
    """Make tokenizer, processor and model, pre-train the model, save all into `folder`."""
    began = time.monotonic()
    tokenizer = tiny.build_tokenizer(_words(), _phrases(schemas, format))
    processor, model = tiny.build_processor(tokenizer), tiny.build_model(tokenizer, seed)
    family = QwenVL(processor)
    documents = _Documents(family, format, [system_prompt(tools, format, "compact") for tools in ((), schemas)], seed)
    collator = Collator(family, ImageFeatures(processor.image_processor), tokenizer.pad_token_id)

    def report(step: int, loss: float) -> None:
        if step % 50 == 0:
            progress(step, loss)

    loss = pretraining.pretrain(model, collator, documents.batches(), STEPS, progress=report)
    tiny.save(folder, model, processor)
    write(folder / "base.json", BasePretraining(seconds=time.monotonic() - began, loss=loss, seed=seed))


def _words() -> Iterable[str]:
    colors = {name for palette in PALETTES.values() for name in palette}
    return {*charts.SHORT_LABELS, *charts.LONG_LABELS, *charts.TITLES, *colors, "user", "assistant", "system"}


def _phrases(schemas: Sequence[ToolSchema], format: Format) -> list[str]:
    """Whatever occurs in every trajectory becomes one token: system prompts, scaffolds of calls, observation heads."""
    texts = [*scripted_texts(format, _BLANK), format.write(Parsed("", answer=_BLANK))]
    scaffolds = [piece for text in texts for piece in text.split(_BLANK) if len(piece) > 2]
    heads = [f"OBSERVATION:\n{schema.name}: " for schema in schemas]
    prompts = [system_prompt(tools, format, "compact") for tools in ((), schemas)]
    roles = ["user\n", "assistant\n", "system\n"]
    return [*prompts, *scaffolds, *heads, *_QUESTION_PIECES, *_RESULT_PIECES, format.right, *roles, " img_", "img_"]


class _Documents:
    """Short texts of which parts can be known from what stands before: lists of labels and numbers, repeated, and
    questions about such lists in the final answer's syntax.

    The words in use grow from a few to all. Recall by content is found suddenly, or not at all in reasonable time, when
    every document has other words; once found for a few it carries over to all.
    """

    def __init__(self, family: QwenVL, format: Format, prompts: Sequence[str], seed: int, steps: int = STEPS) -> None:
        self.family = family
        self.format = format
        self.prompts = prompts
        self.steps = steps
        self.rng = random.Random(f"base/{seed}")
        self.labels = self.rng.sample(LABELS, len(LABELS))
        self.known = FIRST_LABELS

    def batches(self) -> Iterator[list[Sample]]:
        for step in itertools.count():
            grown = (step / self.steps - 0.15) / 0.25  # starts at 15 % of the steps, done at 40 %
            self.known = FIRST_LABELS + round((len(LABELS) - FIRST_LABELS) * min(max(grown, 0), 1))
            yield [self._recall() if self.rng.random() < 0.6 else self._chat() for _ in range(BATCH)]

    def _tokens(self, text: str) -> list[int]:
        return self.family.encode_reply(text)[:-1]

    def _facts(self) -> list[tuple[str, str]]:
        labels = self.rng.sample(self.labels[: self.known], self.rng.randint(2, 5))
        return [(label, str(self.rng.randint(10, 99))) for label in labels]

    def _recall(self) -> Sample:
        """A list three times. In the same order all of the repeats can be known, in another order the numbers can."""
        facts, gap = self._facts(), self._tokens(self.rng.choice(" \n"))
        same_order = self.rng.random() < 0.3
        tokens: list[int] = []
        mask: list[bool] = []
        for repeat in range(3):
            for label, value in facts if same_order else self.rng.sample(facts, len(facts)):
                head, tail = self._tokens(label), self._tokens(value)
                tokens += [*head, *self._tokens(" "), *tail, *gap]
                known = repeat > 0
                mask += [known and same_order] * len(head) + [False] + [known] * len(tail) + [False] * len(gap)
        return Sample(tokens, mask)

    def _chat(self) -> Sample:
        facts = self._facts()
        gap = self.rng.choice(" \n")
        title = self.rng.choice(TITLES) + "\n" if self.rng.random() < 0.5 else ""
        text = title + gap.join(f"{label} {value}" for label, value in facts)
        label, value = self.rng.choice(facts)
        question = f"What is the value of {label}?"
        user = f"{question}\n{text}" if self.rng.random() < 0.5 else f"{text}\n{question}"
        messages = [
            Message(role="system", content=[TextBlock(text=self.rng.choice(self.prompts))]),
            Message(role="user", content=[TextBlock(text=user)]),
        ]
        context = [token for delta in self.family.encode_start(messages, {}) for token in delta]
        reply = self.family.encode_reply(self.format.write(Parsed(evidence(label, value), answer=value)))
        return Sample(context + reply, [False] * len(context) + [True] * len(reply))
