"""`spec.data` of a ToolRLJob: which questions it learns from and is measured on."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from .resource import Block, Rule, Violation, refuse_all
from .uris import DATA_URI, scheme_of


def revision_without_repository(uri: str, revision: str | None) -> list[Violation]:
    """What is wrong with a revision beside such a URI."""
    if revision is None or scheme_of(uri) == "hf":
        return []
    return [Violation(("revision",), f'"{uri}" has no revisions', "Remove it; hf:// repositories have them.")]


REVISION_OF_A_REPOSITORY = Rule(
    "!has(self.revision) || self.uri.startsWith('hf://')",
    "only hf:// repositories have revisions. Remove revision.",
)


class Dataset(Block):
    """One part of the data."""

    cel = (REVISION_OF_A_REPOSITORY,)

    uri: Annotated[str, DATA_URI]
    """`charts://?questions=1200&difficulty=1` (made on the spot; options are the generator's, split and seed follow
    from the run), `hf://org/name`, `pvc://claim/path`, or a path below the storage root, which locally is the
    manifest's folder."""
    revision: str | None = None
    """Commit, tag or branch of a hub repository. Default: the main branch."""

    @model_validator(mode="after")
    def _revision_of_a_repository(self) -> Dataset:
        refuse_all(revision_without_repository(self.uri, self.revision))
        return self


class QuestionSet(Dataset):
    """Questions with their pictures and answers."""

    template: Annotated[str, Field(pattern=r"\{[^{}]+\}", max_length=20_000)] | None = None
    """Words of a question, made of its row's columns, as in `"{question}\\n{options}"`: a list of texts becomes a
    lettered line each; a brace itself is doubled. Default: the question as it is."""


class Data(Block):
    """Questions to learn from, to choose settings with, and to measure on."""

    train: QuestionSet
    """Questions of Synthesize, SFT and GRPO."""
    validation: QuestionSet | None = None
    """Questions for choices during the run, such as the gate of an SFT stage."""
    trajectories: Dataset | None = None
    """Ready-made trajectories for SFT stages without an earlier Synthesize stage: a `.jsonl` file that such a stage has
    written, or conversations (ShareGPT, LLaVA, OpenAI) as a file or hub data set. Default: those of `train`."""
    test: QuestionSet | None = None
    """Questions of Evaluate, seen nowhere else. Needed by Evaluate stages of `split: test`."""
