"""A model as a folder of ONNX files: `thinkimg weights export` writes it, the backend `onnx` reads it. No torch and no
onnxruntime here, so that a folder that is not whole is refused at once."""

from pathlib import Path

from thinkimg import jsonfile
from thinkimg.errors import UserError
from thinkimg.results import ExportedSAM

ENCODER, DECODER = "encoder.onnx", "decoder.onnx"
RECORD = "thinkimg-onnx.json"
NO_POINT, ON_OBJECT, CORNERS = -1, 1, (2, 3)
"""What the decoder's `labels` say of its `points`: nowhere; on the object; a box's first and second corner."""
COMMAND = "thinkimg weights export facebook/sam-vit-base FOLDER"
_FIELD = "options.weights"


def find_exported(weights: str) -> tuple[Path, ExportedSAM]:
    """The folder and what is known of it.

    Raises:
        UserError: it is not there or not whole; the command that makes one is named.
    """
    if not weights:
        raise UserError(
            f"the backend onnx has no weights by default; where torch is, make them with: {COMMAND}", _FIELD
        )
    folder = Path(weights).expanduser()
    if not (folder / RECORD).is_file():
        raise UserError(f"{weights} is no folder with a {RECORD}; where torch is, make one with: {COMMAND}", _FIELD)
    about = jsonfile.read(folder / RECORD, ExportedSAM)
    for name in (ENCODER, DECODER):
        path, known = folder / name, about.files.get(name)
        size = path.stat().st_size if path.is_file() else None
        if known is None or size != known.size:
            fault = "is missing" if known is None or size is None else f"has {size:,} bytes, not {known.size:,}"
            raise UserError(f"{path} {fault}; make the folder again with: {COMMAND}", _FIELD)
    return folder, about
