"""`python -m matrix`, and the `matrix` command: the one place where a refusal becomes a sentence and an exit code."""

from __future__ import annotations

import sys

from matrix.errors import ExitCode, MatrixError


def main() -> None:
    """Run the command line; every refusal ends with its own exit code and never with a traceback."""
    try:
        from matrix.cli import cli  # noqa: PLC0415 - without the host extra there is no command line to import
    except ModuleNotFoundError as error:
        sys.stderr.write(f"matrix: the command line needs {error.name}: install distill-matrix[host]\n")
        sys.exit(ExitCode.USAGE)
    try:
        cli(prog_name="matrix")
    except MatrixError as error:
        sys.stderr.write(f"matrix: {error}\n")
        sys.exit(error.exit_code)
    except OSError as error:
        sys.stderr.write(f"matrix: {error}; check the path, its permissions and the disk\n")
        sys.exit(ExitCode.USAGE)


if __name__ == "__main__":
    main()
