"""Entry of `fastgan` and `python -m fastgan`."""

import sys


def main() -> None:
    """Run the command line of this process and exit with its code."""
    from fastgan.cli.app import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
