"""`python -m thinkimg.gateway --config FILE`."""

import signal
import sys

if "--supervised-by" in sys.argv:  # before the imports, which take a second in which Ctrl-C may come
    signal.signal(signal.SIGINT, signal.SIG_IGN)

from thinkimg.gateway.process import main

if __name__ == "__main__":
    sys.exit(main())
