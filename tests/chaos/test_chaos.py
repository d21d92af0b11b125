"""A short chaos run; `make chaos` is the long one."""

from __future__ import annotations

import random

import pytest

from tests.chaos.plan import Plan
from tests.chaos.run import run

pytestmark = [pytest.mark.once, pytest.mark.slow]


@pytest.mark.fault
@pytest.mark.timeout(300)
def test_chaos_breaks_nothing() -> None:
    """Processes and the store are struck at random, and all that must hold does."""
    # Beside other tests everything may be late; being late is what the long run looks at.
    plan = Plan(random.randrange(1_000_000), seconds=18, jobs=150, faults=13, slack_s=10)

    evidence, broken = run(plan)

    assert not broken, f"to repeat it: python -m tests.chaos {plan.options}"
    assert len(evidence.accepted) >= 80
    assert len(evidence.hits) >= 10
