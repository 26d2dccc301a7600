"""Verdicts as published implementations give them: what a comparison with a paper's figures is made by.

Each rule here is written anew from what its source does, and answers that were put to both are kept with the source's
verdicts in `tests/unit/evaluation/verdicts` (`hack/record_verdicts.py` records them). They judge form as the source
does, oddities included: `Blue` begins with a B and is option B for lmms-eval, 12 % is not 12 for ChartQA. Two
benchmarks are scored by a judge: `thinkimg.evaluation.published_judges`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """A published implementation: file and function of a repository at a commit."""

    repository: str
    commit: str
    file: str
    function: str

    def __str__(self) -> str:
        return f"{self.function} in {self.file} of {self.repository}@{self.commit[:7]}"


_LMMS_EVAL = ("EvolvingLMMs-Lab/lmms-eval", "75571cfe0fa36ca5ec2e6aa2bb268f9d38295af3")
CHARTQA = Source(*_LMMS_EVAL, "lmms_eval/tasks/chartqa/utils.py", "relaxed_correctness")
VSTAR = Source(*_LMMS_EVAL, "lmms_eval/tasks/vstar_bench/utils.py", "extract_answer_letter")
VLMEVALKIT = Source(
    "open-compass/VLMEvalKit",
    "e8e78f05f3080fe28154f2130321f17951c3be94",
    "vlmeval/utils/matching_util.py",
    "can_infer",
)
CHARTGEMMA = Source(
    "OpenThinkIMG/OpenThinkIMG",
    "765c903f4728c23816e58ba66a6c513419b65a3b",
    "tool_server/tf_eval/tasks/chartgemma/task.py",
    "evaluate_function",
)


@dataclass(frozen=True)
class PublishedJudge(Source):
    """A judge, asked in the words of a file.

    Attributes:
        function: that asks it, and reads what it says.
        model: that the benchmark's figures are by.
        sha256: of the file.
    """

    model: str
    sha256: str

    @property
    def path(self) -> str:
        """Of the file, below whatever holds several."""
        return f"{self.repository.replace('/', '+')}/{self.commit}/{self.file}"

    @property
    def url(self) -> str:
        return f"https://raw.githubusercontent.com/{self.repository}/{self.commit}/{self.file}"


CHARXIV_JUDGE = PublishedJudge(
    "princeton-nlp/CharXiv",
    "7ebe88f78dee387691551f071abcb2b9e1a8025b",
    "src/constants.py",
    "get_descriptive_result_gpt and get_reasoning_result_gpt",
    "gpt-4o-2024-05-13",
    "3858589acf65ec2f3f34db9b084563f52b3591ee778aa63066ee3893222e11fd",
)
REACHQA_JUDGE = PublishedJudge(
    "hewei2001/ReachQA",
    "b68bb44b519a8f1b80ee0d280c3dce49050d8222",
    "openai_llm_evaluation.py",
    "llm_evaluation",
    "gpt-4o-2024-08-06",
    "fe211c3626ad5aeab28e3f13b8fa412aaffbf3bfdb338c3eea48365bfeb8fcf4",
)
JUDGES = {"charxiv_judge": CHARXIV_JUDGE, "reachqa_judge": REACHQA_JUDGE}
"""By the scorer that asks them. ReachQA's model is that of its `scripts/eval/run_openai_evaluation.sh`."""


def relaxed(answer: str, reference: str, tolerance: float = 0.05) -> bool:
    """ChartQA's relaxed accuracy, in the form that Qwen-VL's evaluation gave it and lmms-eval took over (`CHARTQA`).

    Numbers within 5 % of the reference agree (Masry et al., 2022, end of section 5.1); a percent sign divides by 100. A
    reference of zero, and everything that is no number, must be the same text but for case.
    """
    expected, given = _as_float(reference), _as_float(answer)
    if given is not None and expected:
        return abs(given - expected) / abs(expected) <= tolerance
    return answer.lower() == reference.lower()


def _as_float(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


_LETTER_OF_VSTAR = (
    re.compile(r"^([A-D])"),
    re.compile(r"(?:ANSWER|CHOICE|OPTION)(?:\s+IS)?[\s:]+([A-D])"),
    re.compile(r"\(([A-D])\)"),
    re.compile(r"([A-D])\s*[.)\]]"),
    re.compile(r"(?:^|\s)([A-D])(?:\s|$)"),
)


def vstar_letter(answer: str) -> str | None:
    """The option that lmms-eval's V*Bench reads from an answer (`VSTAR`): the first pattern that is found anywhere,
    after upper case, whatever word the letter belongs to."""
    said = answer.strip().upper()
    for pattern in _LETTER_OF_VSTAR:
        if found := pattern.search(said):
            return found[1]
    letters = re.findall(r"[A-D]", said)
    return letters[0] if len(letters) == 1 else None


_REFUSALS = (
    "Sorry, I can't help with images of people yet.", "I can't process this file.",
    "I'm sorry, but without the image provided", "Cannot determine the answer",
)  # fmt: skip
_VERBOSE = re.compile(r"answer\s+is\s+\**([ABCD])", re.IGNORECASE)


def vlmevalkit_letter(answer: str, options: Mapping[str, str]) -> str:
    """The option that VLMEvalKit reads from an answer under its policy `exact_matching` (`VLMEVALKIT`); "Z": none. What
    its rules do not read it puts to a judge otherwise, or draws at random."""
    return _vlmevalkit_option(answer, options) or _vlmevalkit_text(answer, options) or "Z"


def _vlmevalkit_option(answer: str, options: Mapping[str, str]) -> str | None:
    """The only letter that is a word, if it is one of the last four; else what stands behind "answer is"."""
    if "Failed to obtain answer via API" in answer:
        return None
    if any(refusal in answer for refusal in _REFUSALS):
        return "Z"
    words = re.sub(r"[.()\[\],:;!*#{}]", " ", answer).split()
    letters = [letter for letter in options if letter in words]
    if len(letters) == 1 and words.index(letters[0]) > len(words) - 5:
        return letters[0]
    if not letters and "Z" in words:
        return "Z"
    verbose = _VERBOSE.search(answer)
    return verbose[1].upper() if verbose and verbose[1].upper() in options else None


def _vlmevalkit_text(answer: str, options: Mapping[str, str]) -> str | None:
    if len(answer) > 2 * sum(len(text) for text in options.values()):
        return None
    found = [letter for letter, text in options.items() if text.lower() in answer.lower()]
    return found[0] if len(found) == 1 else None
