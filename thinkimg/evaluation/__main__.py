"""`python -m thinkimg.evaluation`: see `thinkimg.openthinkimg.evaluation`."""

import sys

from thinkimg.api.pod_contract import ExitCode
from thinkimg.errors import InfrastructureError, UserError
from thinkimg.extras import naming_the_extra
from thinkimg.openthinkimg.evaluation import main

if __name__ == "__main__":
    try:
        with naming_the_extra("python -m thinkimg.evaluation", preferred=("train", "evaluation")):
            main()
    except UserError as error:
        sys.exit(print(f"error {error}", file=sys.stderr) or ExitCode.USER)
    except InfrastructureError as error:
        sys.exit(print(f"infrastructure {error}", file=sys.stderr) or ExitCode.INFRASTRUCTURE)
