"""The command line: thin, and quick to start; what needs torch is imported by its command."""

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; Ctrl-C while it is being imported ends it as quietly as later."""
    try:
        from dstbench.cli.app import main as run_command
    except KeyboardInterrupt:
        sys.exit(130)
    run_command()
