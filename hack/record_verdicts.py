"""Records the verdicts of the published implementations that our official scorers follow, answer by answer.

    python hack/record_verdicts.py REPOSITORIES

REPOSITORIES holds clones named OWNER+NAME (`git clone --bare … EvolvingLMMs-Lab+lmms-eval`). Each file of answers in
`tests/unit/evaluation/verdicts` is read, its answers are put to the code at the commit that
`thinkimg.evaluation.official` names, and the file is written again with the verdicts. Nothing of that code is kept.
OpenThinkIMG's needs the packages math-verify and thefuzz.

CharXiv and ReachQA are scored by a judge: the files in `verdicts/judged` hold what a judge might say, and their code is
given that. What it asks is recorded in the words of `words.json`, which stand in the places of its own prompts; of
those only digests are kept, and they are compared with what ThinkIMG asks, here.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import re
import subprocess
import sys
import tempfile
import types
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from thinkimg.evaluation import official
from thinkimg.evaluation.published import read_constants
from thinkimg.evaluation.published_judges import CharxivWords

VERDICTS = Path(__file__).parent.parent / "tests" / "unit" / "evaluation" / "verdicts"
Row = dict[str, Any]


def source_text(repositories: Path, source: official.Source) -> str:
    clone = repositories / source.repository.replace("/", "+")
    found = clone if (clone / "HEAD").exists() else next(path.parent for path in clone.rglob("HEAD"))
    return subprocess.run(
        ["git", "--git-dir", found, "show", f"{source.commit}:{source.file}"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def run(text: str, name: str, without: str = "$^", **given: Any) -> types.ModuleType:
    """The module that `text` is, without the lines that match `without`, which may use what is `given`."""
    module = types.ModuleType(name)
    module.__dict__.update(given)
    kept = "\n".join(line for line in text.splitlines() if not re.search(without, line))
    exec(compile(kept, name, "exec"), module.__dict__)
    return module


def chartqa(repositories: Path) -> Callable[[Row], float]:
    module = run(source_text(repositories, official.CHARTQA), "chartqa")
    return lambda row: float(module.relaxed_correctness(row["answer"], row["reference"]))


def vstar(repositories: Path) -> Callable[[Row], float]:
    module = run(source_text(repositories, official.VSTAR), "vstar", "loguru")
    return lambda row: float(module.extract_answer_letter(row["answer"]) == row["reference"].strip().upper())


def hrbench(repositories: Path) -> Callable[[Row], float]:
    module = run(source_text(repositories, official.VLMEVALKIT), "matching_util", "get_logger|^logger")
    return lambda row: float((module.can_infer(row["answer"], dict(row["options"])) or "Z") == row["reference"])


def chartgemma(repositories: Path) -> Callable[[Row], float]:
    module = run(
        source_text(repositories, official.CHARTGEMMA),
        "chartgemma",
        r"^from \.|^from datasets|get_logger\(|^task_config",
    )

    def verdict(row: Row) -> float:
        results = [{"idx": 0, "results": {"final_answer": row["answer"]}}]
        return float(module.evaluate_function(results, [{"idx": 0, "label": row["reference"]}])["Acc"])

    return verdict


IMPLEMENTATIONS = {"chartqa": chartqa, "charts": chartqa, "vstar": vstar, "hrbench": hrbench, "chartgemma": chartgemma}


# ---- judges ---------------------------------------------------------------------------------------------------------

JUDGED = VERDICTS / "judged"


class Judge:
    """An OpenAI client whose model says `replies`, the last one again and again; keeps what it was asked."""

    def __init__(self, replies: Iterable[str]) -> None:
        self.replies = list(replies)
        self.asked: list[dict[str, Any]] = []
        self.chat = types.SimpleNamespace(completions=types.SimpleNamespace(create=self.create))

    def create(self, **request: Any) -> Any:
        self.asked.append(request)
        text = self.replies[min(len(self.asked), len(self.replies)) - 1]
        return types.SimpleNamespace(choices=[types.SimpleNamespace(message=types.SimpleNamespace(content=text))])

    def requests(self) -> dict[str, Any]:
        """What the requests have in common, and the limit of tokens of each."""
        first = {
            name: value for name, value in self.asked[0].items() if name not in ("messages", "max_tokens", "model")
        }
        return {
            "model": self.asked[0]["model"],
            "settings": {name: value for name, value in first.items() if value is not None},
            "tokens": [request["max_tokens"] for request in self.asked],
        }


def file_of(repositories: Path, judge: official.PublishedJudge, file: str) -> str:
    return source_text(repositories, dataclasses.replace(judge, file=file))


def with_numbers(constants: Mapping[str, Any]) -> dict[str, Any]:
    """Stand-ins as Python has them: keys that are numbers."""
    return {
        name: {int(key) if key.isdigit() else key: text for key, text in value.items()}
        if isinstance(value, dict)
        else value
        for name, value in constants.items()
    }


class Charxiv:
    """CharXiv's code, with some constants for its own."""

    def __init__(self, repositories: Path, constants: Mapping[str, Any]) -> None:
        self.words = CharxivWords.of(constants)
        sys.modules["constants"] = types.ModuleType("constants")
        asking = {"DESCRIPTIVE_RESP_INST": {}, "REASONING_RESP_INST": {}}  # what models are asked, not the judge
        sys.modules["constants"].__dict__.update(asking | dict(constants))
        for name in ("score_utils", "descriptive_utils", "reasoning_utils", "get_stats"):
            sys.modules[name] = run(file_of(repositories, official.CHARXIV_JUDGE, f"src/{name}.py"), name)
        self.descriptive, self.reasoning = sys.modules["descriptive_utils"], sys.modules["reasoning_utils"]
        self.stats = sys.modules["get_stats"]

    def judged(self, row: Row) -> tuple[str, str, list[float], Judge]:
        """Its prompt, ours, its verdicts, and what was asked."""
        judge = Judge(row["replies"])
        if "template" not in row:
            response, truth = row["answers"][0]
            data = {"k": {"figure_id": "k", "inst_category": row["kind"], "answer": truth}}
            found = {"k": {"raw_question": row["question"], "response": response}}
            text = self.reasoning.build_reasoning_grading_queries(data, found)["k"]["grading_query"]
            _, score = self.reasoning.get_reasoning_result_gpt(judge, text)
            ours = self.words.about_reasoning(row["kind"], row["question"], response, truth)
            return text, ours, [self._counted(score, row["kind"])], judge
        template = row["template"]
        answers = [(f"k_{number}", *answer) for number, answer in enumerate(row["answers"])]
        (query,) = self.descriptive.build_descriptive_grading_queries({template: answers})
        text, count = query["grading_query"], len(answers)
        result = self.descriptive.get_descriptive_result_gpt(judge, text, count)
        scores = self.descriptive.postprocess_descriptive_grading_queries([{**query, **result}])
        values = [self._counted(scores[key]["score"], None, template) for key, *_ in answers]
        return text, self.words.about(template, row["answers"]), values, judge

    def _counted(self, score: Any, kind: int | None, template: int = 1) -> float:
        """What a score counts as in its figures."""
        image, shape = {"k": {"category": "cs", "year": "20"}}, {"k": {"num_subplots": 1, "qids": [template] * 4}}
        if kind is None:
            scores = {f"k_{number}": {"score": score} for number in range(4)}
            found = self.stats.get_descriptive_scores(scores, shape, {}, image)
        else:
            asked = {"k": {"inst_category": kind, "qa_source": 1}}
            found = self.stats.get_reasoning_scores({"k": {"score": score}}, shape, asked, image)
        return float(found["Overall Score"][0])

    def companies(self, figures: list[Row]) -> list[list[str]]:
        """Which answers are judged together, as FIGURE-dNUMBER."""
        data = {
            str(one["figure"]): {"figure_id": one["figure"], "qids": one["templates"], "answers": ["x"] * 4}
            for one in figures
        }
        said = {f"{one['figure']}_{number}": {"response": "x"} for one in figures for number in range(4)}
        groups = self.descriptive.preprocess_descriptive_grading_queries(data, said)
        queries = self.descriptive.build_descriptive_grading_queries(groups)
        names = [[key.split("_") for key in query["resp_keys"]] for query in queries]
        return [[f"{figure}-d{int(number) + 1}" for figure, number in company] for company in names]


def record_charxiv(repositories: Path, words: Mapping[str, Any]) -> None:
    rows = read_rows(JUDGED / "charxiv.jsonl")
    own = read_constants(file_of(repositories, official.CHARXIV_JUDGE, official.CHARXIV_JUDGE.file))
    for constants, keep in ((with_numbers(words), "prompt"), (own, "sha256")):
        code = Charxiv(repositories, constants)
        for row in rows:
            with contextlib.redirect_stdout(io.StringIO()):
                theirs, ours, verdicts, judge = code.judged(row)
            assert ours == theirs, row
            row[keep] = theirs if keep == "prompt" else hashlib.sha256(theirs.encode()).hexdigest()
            row |= {"verdicts": verdicts, **judge.requests()}
    write_rows(JUDGED / "charxiv.jsonl", rows)
    groups = json.loads((JUDGED / "charxiv_groups.json").read_text())
    groups["companies"] = code.companies(groups["figures"])
    (JUDGED / "charxiv_groups.json").write_text(json.dumps(groups) + "\n")


def record_reachqa(repositories: Path, words: Mapping[str, Any]) -> None:
    rows = read_rows(JUDGED / "reachqa.jsonl")
    asking = file_of(repositories, official.REACHQA_JUDGE, "utils/openai_utils.py")
    sys.modules["utils"], sys.modules["utils.openai_utils"] = types.ModuleType("utils"), run(asking, "openai_utils")
    code = run(
        file_of(repositories, official.REACHQA_JUDGE, official.REACHQA_JUDGE.file),
        "openai_llm_evaluation",
        "^import (pandas|openai)|^from tqdm",
        tqdm=lambda found, total: found,
    )
    asked = [
        {"question": r["question"], "answer": r["reference"], "prediction": r["answer"], "split": ""} for r in rows
    ]
    for text, keep in ((words["Answer_Judge_Prompt"], "prompt"), (code.Answer_Judge_Prompt, "sha256")):
        code.__dict__["Answer_Judge_Prompt"], judge = text, Judge(row["replies"][0] for row in rows)
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            file = Path(folder) / "answers.json"
            file.write_text(json.dumps(asked))
            code.llm_evaluation(official.REACHQA_JUDGE.model, judge, file, "swift", file, 1)
            found = json.loads(file.read_text())
        for row, request, item in zip(rows, judge.asked, found, strict=True):
            system, user = (message["content"] for message in request["messages"])
            named = {"question": row["question"], "answer": row["reference"], "prediction": row["answer"]}
            assert user == text.format(**named), row
            row[keep] = user if keep == "prompt" else hashlib.sha256(user.encode()).hexdigest()
            one = Judge([])
            one.asked = [request]
            row |= {"system": system, "verdicts": [float(item["correctness"] == 1)], **one.requests()}
    write_rows(JUDGED / "reachqa.jsonl", rows)


def read_rows(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def write_rows(path: Path, rows: list[Row]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    verdicts = [verdict for row in rows for verdict in row.get("verdicts", [row.get("verdict")])]
    print(f"{path.stem}: {len(verdicts)} answers, {sum(verdict == 1 for verdict in verdicts)} right")


def main(repositories: Path) -> None:
    for name, make in IMPLEMENTATIONS.items():
        path, verdict = VERDICTS / f"{name}.jsonl", make(repositories)
        rows = read_rows(path)
        for row in rows:
            row["verdict"] = verdict(row)
        write_rows(path, rows)
    words = json.loads((JUDGED / "words.json").read_text(encoding="utf-8"))
    record_charxiv(repositories, words["charxiv"])
    record_reachqa(repositories, words["reachqa"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
