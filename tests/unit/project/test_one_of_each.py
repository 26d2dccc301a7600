"""Each thing has one reader, and `make check` finds whoever reads it otherwise (`hack/check_readers.py`)."""

import shutil
import subprocess
import sys
from pathlib import Path

import check_readers
import pytest

from tests.support import REPOSITORY


def test_nothing_is_read_otherwise() -> None:
    assert check_readers.check(REPOSITORY) == []


def test_make_check_runs_it() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    assert " check-readers " in next(line for line in makefile.split("\n") if line.startswith("check: "))
    assert "$(BIN)/python hack/check_readers.py" in makefile


def test_every_allowance_has_a_reason() -> None:
    assert all(len(reason) > 10 for paths in check_readers.ALLOWED.values() for reason in paths.values())


PLANTED = [
    ("decoder", "from PIL import Image\nImage.open(file)"),
    ("decoder", "from PIL import Image as Pillow\nPillow.open(file)"),
    ("decoder", "import PIL.Image\nPIL.Image.open(file)"),
    ("decoder", "import PIL.Image as P\nP.open(file)"),
    ("decoder", "from PIL.Image import open as look\nlook(file)"),
    ("decoder", "def f():\n    from PIL import Image\n    return Image.open(file)"),
    ("decoder", "picture.convert('RGB')"),
    ("decoder", "rows[0]['image'].convert(mode='RGB')"),
    ("decoder", "import cv2\ncv2.imdecode(data, 1)"),
    ("decoder", "from cv2 import imread\nimread(path)"),
    ("decoder", "from transformers.image_utils import load_image\nload_image(path)"),
    ("decoder", "import torchvision\ntorchvision.io.decode_image(data)"),
    ("data set", "import datasets\ndatasets.load_dataset(name)"),
    ("data set", "from datasets import load_dataset as load\nload(name)"),
    ("data set", "from datasets import Image\ntable.cast_column('image', Image(decode=True))"),
    ("data set", "import datasets\ndatasets.Dataset.from_parquet(path)"),
    ("data set", "import pyarrow.parquet as pq\npq.read_table(path)"),
    ("splitlines", "text.splitlines()"),
    ("splitlines", "[x for x in path.read_text().splitlines(keepends=True)]"),
    ("JSON line", "import json\nfor line in file:\n    json.loads(line)"),
    ("JSON line", "import json\n[json.loads(one) for one in file]"),
    ("JSON line", "from json import loads\nfor number, text in enumerate(file):\n    loads(text.strip())"),
    ("JSON line", "import json\njson.loads(lines[-1])"),
    ("JSON line", "from pydantic_core import from_json\nfor raw in file:\n    from_json(raw)"),
    ("JSON line", "import json\nfile.write(json.dumps(record) + '\\n')"),
    ("JSON line", "file.write(trajectory.model_dump_json() + '\\n')"),
    ("YAML", "import yaml\nyaml.safe_load(text)"),
    ("YAML", "from yaml import safe_load_all\nsafe_load_all(text)"),
    ("KEY=VALUE", "key, equals, value = pair.partition('=')"),
    ("KEY=VALUE", "dict(pair.split('=', 1) for pair in pairs)"),
]


@pytest.mark.parametrize(("rule", "source"), PLANTED)
def test_a_planted_offence_is_found(rule: str, source: str) -> None:
    assert [found.rule for found in check_readers.offences(source, "thinkimg/new.py")] == [rule]


@pytest.mark.parametrize(
    "source",
    [
        "import json\njson.loads(path.read_text())",
        "import json\nfor path in paths:\n    json.loads(path.read_text())",
        "import json\npath.write_text(json.dumps(value, indent=1) + '\\n')",
        "from PIL import Image\nImage.new('RGB', (1, 1)).convert('L')",
        "file.open(path)",
        "text.split(',')",
        "import yaml\nyaml.safe_dump(value)",
    ],
)
def test_what_reads_nothing_of_these_is_let_through(source: str) -> None:
    assert check_readers.offences(source, "thinkimg/new.py") == []


def planted(folder: Path) -> Path:
    for name in check_readers.SCANNED:
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "static"))
    return folder


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    script = str(REPOSITORY / "hack" / "check_readers.py")
    return subprocess.run([sys.executable, script, str(folder)], capture_output=True, text=True)


def test_the_command_fails_on_a_planted_offence_and_on_an_allowance_that_nothing_needs(tmp_path: Path) -> None:
    folder = planted(tmp_path)
    assert run(folder).returncode == 0
    (folder / "operator" / "new.py").write_text("import yaml\n\n\nyaml.safe_load('a: no')\n")
    (folder / "thinkimg" / "tools" / "markup.py").write_text("")
    found = run(folder)
    assert found.returncode == 1
    assert found.stdout.startswith("operator/new.py:4: YAML: YAML is read as manifests are: thinkimg.api.read_yaml")
    assert "thinkimg/tools/markup.py: KEY=VALUE: it is allowed here, and nothing needs it" in found.stdout
