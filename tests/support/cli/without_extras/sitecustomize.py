"""On PYTHONPATH: this process and its children find none of the packages in THINKIMG_TEST_ABSENT (`torch,fastapi`)."""

import os
import sys

ABSENT = set(filter(None, os.environ.get("THINKIMG_TEST_ABSENT", "").split(",")))


class Absent:
    """Asked before any other finder."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name in ABSENT or name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


sys.meta_path.insert(0, Absent)
