"""What two parts of RL are worth: refilled groups, and failures that are not blamed on the model.

    python hack/ablations.py [--run runs/ablations] [--seeds 0,1] [--steps 40]

Base, cold start and SFT of the demo's manifest, once for each seed; from that SFT, RL of `--steps` steps:

- `plain`: as the demo has it;
- `refill`: groups whose rewards are all equal are replaced by other questions;
- `flaky-told-apart`: every fifth call of a tool fails as a broken server's does. The client tries again, and what fails
  to the last is sampled again and never rewarded or punished;
- `flaky-blamed`: every fifth call fails, and comes back as if it had been the model's mistake, which is what happens
  where a tool's failures are observations like any other.

Then all are measured, without failures, on the validation questions. Run again to go on. Leaves `results.json` and
`results.md` in the folder; the last line is one JSON object.
"""

import argparse
import copy
import http.client
import json
import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from local_http import serving

from thinkimg.evaluation.seeds import write_table
from thinkimg.jobs.runner.run import JobRun, prepare
from thinkimg.jsonfile import read
from thinkimg.results import ToolCalls, read_done
from thinkimg.training_log import GRPOLine, read_log
from thinkimg.wire import Problem

DEMO = Path(__file__).parent.parent / "manifests" / "toolrljob-cpu.yaml"
SHARE = 0.2
FAULTS = {
    "flaky-told-apart": Problem(503, "infrastructure", "unavailable", "the tool timed out"),
    "flaky-blamed": Problem(422, "model", "refused", "The tool timed out."),
}
VARIANTS = ("plain", "refill", *FAULTS)
PAIRS = [("refill", "plain"), ("flaky-told-apart", "flaky-blamed"), ("flaky-told-apart", "plain"), ("plain", "sft")]
_HOP = ("connection", "transfer-encoding", "keep-alive")


def manifest_of(demo: str, steps: int) -> str:
    """The demo's manifest with the stages of this experiment."""
    documents = list(yaml.safe_load_all(demo))
    (job,) = (document for document in documents if document["kind"] == "ToolRLJob")
    job["metadata"]["name"] = "ablations"
    stages = {stage["name"]: stage for stage in job["spec"]["stages"]}
    variants = {name: copy.deepcopy(stages["v-toolrl"]) | {"name": name} for name in VARIANTS}
    for variant in variants.values():
        variant["grpo"]["maxSteps"] = steps
    variants["refill"]["grpo"]["refill"] = True
    table = stages["table"] | {"evaluate": {"models": ["sft", *VARIANTS], "split": "validation"}}
    job["spec"]["stages"] = [stages["cold-start"], stages["sft"], *variants.values(), table]
    return yaml.safe_dump_all(documents, sort_keys=False)


class AblationRun(JobRun):
    """A run in which the tools of some stages fail."""

    def start_tools(self, name: str, folder: Path, stack: ExitStack) -> dict[str, str]:
        servers = super().start_tools(name, folder, stack)
        if name not in FAULTS:
            return servers
        return {
            stack.enter_context(flaky(url, FAULTS[name], f"{name}/{self.seed}/{url}")): key
            for url, key in servers.items()
        }


@contextmanager
def flaky(url: str, fault: Problem, seed: str) -> Iterator[str]:
    """The address of a proxy before a tool server that answers a share of the calls with `fault`."""
    chance, lock = random.Random(seed), threading.Lock()
    target = urlsplit(url)
    assert target.hostname
    assert target.port
    server = (target.hostname, target.port)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1  # head and body in one packet

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            with lock:
                fails = self.command == "POST" and "/tools/" in self.path and chance.random() < SHARE
            if fails:
                document = json.dumps(fault.as_document()).encode()
                self._answer(fault.status, {"content-type": "application/problem+json"}, document)
                return
            connection = http.client.HTTPConnection(*server, timeout=120)
            try:
                headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
                connection.request(self.command, self.path, body, headers)
                answer = connection.getresponse()
                kept = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP}
                self._answer(answer.status, kept, answer.read())
            finally:
                connection.close()

        do_GET = do_POST = do_PUT = do_HEAD = _pass_on

        def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                if name.lower() != "content-length":
                    self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)
            self.wfile.flush()

        def log_message(self, *_: Any) -> None: ...

    with serving(Handler) as address:
        yield address


def counts(run: Path, name: str) -> dict[str, Any]:
    """What a stage's log says of failures, resampling and refills, over all steps."""
    folder = run / "stages" / name
    lines = [line for line in read_log(folder / "log.jsonl") if isinstance(line, GRPOLine)]
    errors: Counter[str] = Counter()
    masked: Counter[str] = Counter()
    for line in lines:
        errors.update(line.errors)
        masked.update(line.masked_by)
    sums = {key: sum(getattr(line, key) for line in lines) for key in ("resampled", "flat", "refilled")}
    seconds = read_done(folder / "done.json").seconds
    tools = read(folder / "tools.json", ToolCalls).tools.values()
    failed = sum(tool.errors.infrastructure for tool in tools)
    calls = sum(tool.http_calls for tool in tools)
    return {
        "seconds": seconds, "http_calls": calls, "infrastructure_errors": failed, "masked": dict(masked),
        "model_errors": dict(errors), **sums,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="Refilled groups, and failures told apart or not.")
    parser.add_argument("--run", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--steps", type=int, default=40)
    options = parser.parse_args()
    options.run.mkdir(parents=True, exist_ok=True)
    manifest = options.run / "ablations.yaml"
    manifest.write_text(manifest_of(DEMO.read_text(), options.steps))
    runs = []
    for seed in map(int, options.seeds.split(",")):
        made = prepare(manifest, options.run / f"seed-{seed}", None, seed)
        AblationRun(made.manifest, made.job, made.run, seed, console=made.console).execute()
        runs.append(made.run.path)
    table = write_table(runs, options.run, PAIRS)
    print((options.run / "results.md").read_text())
    models = table.mean.models
    print(
        json.dumps(
            {
                "accuracy": {name: round(models[name].accuracy or 0.0, 4) for name in ("sft", *VARIANTS)},
                "accuracy_sampled": {
                    name: round(models[name].accuracy_sampled or 0.0, 4) for name in ("sft", *VARIANTS)
                },
                "differences": [found.model_dump() for found in table.mean.differences],
                "stages": {name: {run.name: counts(run, name) for run in runs} for name in VARIANTS},
            }
        )
    )


if __name__ == "__main__":
    main()
