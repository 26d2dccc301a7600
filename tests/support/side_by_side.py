"""Which tests go to the same worker of pytest-xdist."""

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling


class ByFile(LoadFileScheduling):
    """The tests of a file go to one worker, in the order of `testpaths`; those of tests/cluster all go to the same: one
    control plane, and a last file that looks at what the others did with it."""

    def __init__(self, config: pytest.Config, log: Producer) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False  # it would put files with many tests first, which are not the long ones

    def _split_scope(self, nodeid: str) -> str:
        return "tests/cluster" if nodeid.startswith("tests/cluster/") else super()._split_scope(nodeid)
