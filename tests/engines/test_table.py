"""The table in the docs is whole: it was made by this suite, and of all of it."""

from __future__ import annotations

from tests.engines import test_conformance
from tests.engines.conftest import KINDS
from tests.engines.table import ROWS, read


def test_table_has_every_fault_and_engine() -> None:
    """A test or an engine that is new is not in the docs until `make engines` has run."""
    tests = {name for name in vars(test_conformance) if name.startswith("test_")}

    shown = read()

    assert tests == ROWS.keys()
    assert shown.keys() == {(label, kind.name) for label in ROWS.values() for kind in KINDS}
    for (label, engine), cell in shown.items():
        nothing_to_do = engine == "in-process" and ("message" in label or "broker" in label)
        assert cell != "—" or nothing_to_do or "10,000" in label or "accepted it" in label
