"""Write thinkimg/api/v1alpha1/trainer_args.json: names and simple types of TRL's SFTConfig and GRPOConfig.

Run it after a change of TRL's version: `python hack/generate_trainer_args.py`. tests/unit/api/test_trainer_args.py
fails while file and TRL differ. It stands outside `thinkimg.api`, which must not import TRL.
"""

from __future__ import annotations

import dataclasses
import json
import types
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

TARGET = Path(__file__).parent.parent / "thinkimg" / "api" / "v1alpha1" / "trainer_args.json"
SIMPLE: dict[Any, str] = {
    bool: "bool",
    int: "int",
    float: "float",
    str: "str",
    list: "list",
    dict: "dict",
    type(None): "null",
}


def simple_types(annotation: Any) -> list[str]:
    """Names of the YAML types that fit: `int | None` gives ["int", "null"]; what YAML cannot write gives nothing."""
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        return [name for member in get_args(annotation) for name in simple_types(member)]
    if origin is Literal:
        return [SIMPLE[type(value)] for value in get_args(annotation)]
    if isinstance(annotation, type) and issubclass(annotation, str):  # enumerations of transformers are strings too
        return ["str"]
    return [SIMPLE[origin or annotation]] if (origin or annotation) in SIMPLE else []


def arguments(config: type) -> dict[str, str]:
    """Name → types joined by "|" of a config's constructor; arguments that only a Python object fits are left out."""
    hints = get_type_hints(config)
    found = {}
    for field in dataclasses.fields(config):
        names = sorted(set(simple_types(hints[field.name])), key=list(SIMPLE.values()).index)
        if field.init and set(names) - {"null"}:
            found[field.name] = "|".join(names)
    return dict(sorted(found.items()))


def generate() -> str:
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.sft_config import SFTConfig

    lists = {"trl": version("trl"), "sft": arguments(SFTConfig), "grpo": arguments(GRPOConfig)}
    return json.dumps(lists, indent=1) + "\n"


if __name__ == "__main__":
    TARGET.write_text(generate(), encoding="utf-8")
    print(f"wrote {TARGET}")
