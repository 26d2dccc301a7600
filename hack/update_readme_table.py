"""Put the measured table between `<!-- table -->` and `<!-- /table -->` of README.md.

Run it after `make table`: `python hack/update_readme_table.py [runs/table]`. It takes results.md as it is, and refuses
a folder whose results.json has other seeds than the manifest: the README shows the whole table or none.
"""

import re
import sys
from pathlib import Path

import yaml

from thinkimg.errors import UserError
from thinkimg.jsonfile import read
from thinkimg.results import TableResults

ROOT = Path(__file__).parent.parent
MANIFEST = ROOT / "manifests" / "toolrljob-cpu.yaml"
MARKERS = re.compile(r"(<!-- table -->\n).*?(<!-- /table -->)", re.DOTALL)


def table_of(folder: Path, seeds: list[int]) -> str:
    """The Markdown of a finished table.

    Raises:
        ValueError: it is not there, or not of these seeds.
    """
    try:
        measured = [int(seed) for seed in read(folder / "results.json", TableResults).seeds]
        text = (folder / "results.md").read_text(encoding="utf-8")
    except (OSError, UserError) as error:
        raise ValueError(f"{folder} holds no finished table ({error}): run `make table`") from error
    if measured != seeds:
        raise ValueError(f"{folder} has seeds {measured}, the manifest has {seeds}: run `make table`")
    return text


def with_table(readme: str, table: str) -> str:
    """`readme` with `table` between its markers, of which there must be one pair."""
    changed, count = MARKERS.subn(lambda match: f"{match[1]}{table.strip()}\n{match[2]}", readme)
    if count != 1:
        raise ValueError(f"README.md has {count} places for the table, not one")
    return changed


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "runs" / "table"
    documents = yaml.safe_load_all(MANIFEST.read_text(encoding="utf-8"))
    (seeds,) = (document["spec"]["seeds"] for document in documents if document["kind"] == "ToolRLJob")
    readme = ROOT / "README.md"
    try:
        readme.write_text(with_table(readme.read_text(encoding="utf-8"), table_of(folder, seeds)), encoding="utf-8")
    except ValueError as error:
        sys.exit(str(error))
    print(f"wrote {readme}")


if __name__ == "__main__":
    main()
