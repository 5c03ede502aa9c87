"""The flows `compare` and `sweep` from the command line: `python -m flows.experiments --help`."""

from __future__ import annotations

from flows.compare import compare
from flows.form import command
from flows.sweep import sweep

if __name__ == "__main__":
    command(compare, sweep)
