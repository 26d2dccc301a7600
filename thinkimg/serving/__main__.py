"""`python -m thinkimg.serving --config FILE`."""

import os
import signal
import sys

if "--supervised-by" in sys.argv:  # before the imports, which take a second in which Ctrl-C may come
    signal.signal(signal.SIGINT, signal.SIG_IGN)

from thinkimg.serving.process import main

if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a tool that hangs in a thread must not keep the process
