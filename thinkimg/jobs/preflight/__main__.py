"""Started by `thinkimg.jobs.preflight.process.check_before`."""

import sys

from thinkimg.jobs.preflight.process import main

if __name__ == "__main__":
    main(sys.argv[1])
