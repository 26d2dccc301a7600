"""A trained stage as a model folder that plain transformers loads, with a card that says what it can do."""

import shutil
from pathlib import Path

from thinkimg.errors import UserError
from thinkimg.jobs.layout import Run


def find_model(path: Path) -> tuple[Run, str]:
    """The run and the stage of `runs/demo/stages/v-toolrl`, or in short `runs/demo/v-toolrl`.

    Raises:
        UserError: no finished model is there; the stages that have one are named.
    """
    path = path.resolve()
    folder = path.parent.parent if path.parent.name == "stages" else path.parent
    run = Run(folder)
    if (run.model(path.name) / "config.json").exists():
        return run, path.name
    known = sorted(found.parent.parent.name for found in folder.glob("stages/*/model/config.json"))
    hint = f"{folder} has {', '.join(known)}" if known else f"{folder} is not a run with trained models"
    raise UserError(f"there is no trained model; {hint}", str(path))


def export_model(path: Path, out: Path) -> None:
    """Copy weights and processor, write README.md. `out` must not hold anything yet."""
    run, name = find_model(path)
    if out.exists() and any(out.iterdir()):
        raise UserError("the folder is not empty", str(out))
    shutil.copytree(run.model(name), out, dirs_exist_ok=True)
    (out / "README.md").write_text(_card(run, name))


def _card(run: Run, name: str) -> str:
    results = run.path / "results.md"
    table = results.read_text() if results.exists() else "The run is not finished: there is no table yet.\n"
    return f"""---
library_name: transformers
pipeline_tag: image-text-to-text
tags: [thinkimg, tool-use]
---

# {name}

A vision-language model trained with ThinkIMG to call vision tools while it reasons: stage `{name}` of a ToolRLJob. It
expects the system prompt and the tool-call syntax of that job (`manifest.yaml` of the run).

```python
from transformers import AutoModelForImageTextToText, AutoProcessor

model = AutoModelForImageTextToText.from_pretrained("this folder")
processor = AutoProcessor.from_pretrained("this folder")
```

{table}"""
