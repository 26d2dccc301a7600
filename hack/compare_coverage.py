"""What share of the lines that one run of tests reached another one reached: `compare_coverage.py PART WHOLE`.

Two data files of coverage.py. Prints one JSON object; lines are statements, as coverage.py counts them.
"""

import argparse
import json
from pathlib import Path

import coverage

ROOT = Path(__file__).resolve().parents[1]


def reached(data_file: Path) -> dict[str, tuple[set[int], set[int]]]:
    """Of each file of the project: its statements, and those that ran."""
    run = coverage.Coverage(data_file=str(data_file), config_file=str(ROOT / "pyproject.toml"))
    run.load()
    lines = {}
    for file in run.get_data().measured_files():
        _, statements, _, missing, _ = run.analysis2(file)
        lines[file] = set(statements), set(statements) - set(missing)
    return lines


def compare(part: Path, whole: Path) -> dict[str, float]:
    some, every = reached(part), reached(whole)
    statements = sum(len(lines) for lines, _ in every.values())
    in_whole = sum(len(ran) for _, ran in every.values())
    in_part = sum(len(ran) for _, ran in some.values())
    shared = sum(len(ran & some[file][1]) for file, (_, ran) in every.items() if file in some)
    return {
        "statements": statements,
        "whole": in_whole,
        "part": in_part,
        "part_of_statements": round(in_part / statements, 3),
        "part_of_whole": round(shared / in_whole, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", type=Path)
    parser.add_argument("whole", type=Path)
    arguments = parser.parse_args()
    print(json.dumps(compare(arguments.part, arguments.whole)))


if __name__ == "__main__":
    main()
