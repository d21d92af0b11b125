"""`python -m tests.chaos`: one chaos run, its report, and what is broken, if anything is."""

from __future__ import annotations

import argparse
import random
import sys
from dataclasses import fields

from tests.chaos.plan import Plan
from tests.chaos.run import run


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    for option in fields(Plan)[1:]:
        parser.add_argument(f"--{option.name}", type=type(option.default), default=option.default)
    _, broken = run(Plan(**vars(parser.parse_args())))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
