"""What tests share: worlds, servers, models and programs that they start, by area.

Nothing here is a test. pytest finds this package, and the modules of hack/ and hack/cluster, by `pythonpath` of
pyproject.toml; a process that a test starts finds them by PYTHONPATH.
"""

import os
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PYTHONPATH = os.pathsep.join(map(str, (REPOSITORY, REPOSITORY / "hack", REPOSITORY / "hack" / "cluster")))
