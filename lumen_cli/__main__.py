"""The console script `lumen` and `python -m lumen_cli`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from lumen_cli.errors import LumenError


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 all done, 1 some failed, 2 wrong usage or model, 130 interrupted.

    What a user can mend ends in one line on standard error; everything else keeps its traceback.
    """
    # Threads of torch that wait should sleep: spinning, they take the cores from those that read and write pictures.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        from lumen_cli.cli.app import app

        app(args=None if arguments is None else list(arguments), prog_name="lumen")
    except LumenError as error:
        from lumen_cli.reports.text import printable

        print(f"lumen: {printable(str(error))}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
