import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "serving"))

from sample_servers import sample_url, start

__all__ = ["sample_url", "start"]
