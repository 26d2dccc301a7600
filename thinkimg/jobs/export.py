"""A model as a folder that plain transformers loads, with a card that says what it can do."""

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from thinkimg.errors import UserError
from thinkimg.jobs.model_tools import made
from thinkimg.models.backends import find_model
from thinkimg.models.checkpoint import check_checkpoint
from thinkimg.models.loading import loading_of
from thinkimg.models.reference import Endpoint, Folder, Model
from thinkimg.models.trained import write_trained

_OF_TRAINING = (
    "checkpoint-*", "complete.json", "optimizer*", "scheduler.pt", "scaler.pt", "rng_state*", "global_step*",
    "trainer_state.json", "training_args.bin", "base.json", "done.json", "output.log", "servers",
)  # fmt: skip


def export_model(written: str, out: Path, model_args: Mapping[str, Any] = MappingProxyType({})) -> None:
    """Write weights, processor, README.md, and what the model was trained to be asked with (`thinkimg_config.json`).
    Adapters are merged. `out` must not hold anything yet.

    Args:
        model_args: `revision`, `base` (of an adapter), `trust_remote_code`.

    Raises:
        UserError: no such model, or one without weights here.
    """
    model = find_model(written, None, model_args)
    print(model, file=sys.stderr)
    if isinstance(model.source, Endpoint):
        raise UserError(f"{model.source} has no weights here", "MODEL")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError("the folder is not empty", str(out))
    model = made(model)
    if isinstance(model.source, Folder):
        check_checkpoint(model.source.path)
        shutil.copytree(model.source.path, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*_OF_TRAINING))
    else:
        from thinkimg.models.pretrained import load_model

        load_model(model, loading_of(model_args, dtype="auto")).save(out)
    if model.trained is not None:
        write_trained(out, model.trained)
    (out / "README.md").write_text(_card(model), encoding="utf-8")


def _card(model: Model) -> str:
    return f"""---
library_name: transformers
pipeline_tag: image-text-to-text
tags: [thinkimg, tool-use]
---

# {_title(model)}

{_origin(model)}

```python
from transformers import AutoModelForImageTextToText, AutoProcessor

model = AutoModelForImageTextToText.from_pretrained("this folder")
processor = AutoProcessor.from_pretrained("this folder")
```

{_table(model)}"""


def _title(model: Model) -> str:
    return str(model.place.stage) if model.place else Path(model.written).name


def _origin(model: Model) -> str:
    if model.trained is None:
        return f"Written by `thinkimg export` from {model.source}."
    return (
        "A vision-language model trained with ThinkIMG to call vision tools while it reasons: stage "
        f"`{model.trained.stage}` of the ToolRLJob `{model.trained.job}`. It expects the system prompt, the call "
        f"syntax and the tools that it was trained with ({model.trained}); `thinkimg_config.json` has them, and "
        "`thinkimg ask`, `eval` and `gateway` take them from there."
    )


def _table(model: Model) -> str:
    if model.place is None:
        return ""
    results = model.place.run / "results.md"
    return results.read_text() if results.exists() else "The run is not finished: there is no table yet.\n"
