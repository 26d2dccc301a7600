"""A stage of a run as training leaves it, by its files only: what finds and copies a model looks at no weight."""

from pathlib import Path

FILES = {
    "config.json": b'{"model_type": "qwen2_5_vl"}',
    "preprocessor_config.json": b"{}",
    "tokenizer.json": b"{}",
    "model.safetensors": (2).to_bytes(8, "little") + b"{}",
}


def write_trained_stage(run: Path, name: str) -> Path:
    """Its model folder."""
    folder = run / "stages" / name / "model"
    folder.mkdir(parents=True)
    for file, data in FILES.items():
        (folder / file).write_bytes(data)
    return folder
