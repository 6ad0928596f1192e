"""The command line: thin, and quick to start; what needs torch is imported by its command."""

from dstbench.cli.app import main

__all__ = ["main"]
