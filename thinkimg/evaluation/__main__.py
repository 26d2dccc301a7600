"""`python -m thinkimg.evaluation`: see `thinkimg.openthinkimg.evaluation`."""

import sys

from thinkimg.api.pod_contract import ExitCode
from thinkimg.errors import InfrastructureError, UserError
from thinkimg.openthinkimg.evaluation import main

if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(print(f"error {error}", file=sys.stderr) or ExitCode.USER)
    except InfrastructureError as error:
        sys.exit(print(f"infrastructure {error}", file=sys.stderr) or ExitCode.INFRASTRUCTURE)
