"""The console script `lumen` and `python -m lumen_cli`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from lumen_cli.cli import INTERRUPTED, complaint, guarded_streams, interrupts_end, log
from lumen_cli.errors import LumenError


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    An error that the user can fix ends in one line on standard error; any other keeps its traceback. `EXIT_CODES` in
    errors.py lists the exit codes.
    """
    # Waiting threads of torch should sleep: a spinning one takes a core from the threads that read and write pictures.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with interrupts_end(for_good=arguments is None), guarded_streams():
        try:
            code = _run(arguments)
        except Exception:
            log.fault()
            raise
        finally:
            log.end()
        sys.exit(code)


def _run(arguments: Sequence[str] | None) -> int:
    try:
        from lumen_cli.cli.app import app

        try:
            code = app(args=None if arguments is None else list(arguments), prog_name="lumen", standalone_mode=False)
        except Exception as error:
            refused = complaint(error)
            if refused is None:
                raise
            line, code = refused
            if line:
                _say(line)
        sys.stdout.flush()
        return code or 0
    except LumenError as error:
        from lumen_cli.text import with_options

        _say(with_options(error.message, error.remedy))
        return error.exit_code
    except KeyboardInterrupt:
        _say("interrupted")
        return INTERRUPTED


def _say(line: str) -> None:
    from lumen_cli.text import printable

    log.error(printable(line))
    print(f"lumen: {printable(line)}", file=sys.stderr)


if __name__ == "__main__":
    main()
