"""The app of one door, for a server; DOOR says which one."""

from __future__ import annotations

import os

from tests.apps.doors import LIMITS, make

site, app = make(
    os.environ["DOOR"],
    lambda kind, **options: kind(**options),
    limits=LIMITS,
    drain_s=float(os.environ.get("DRAIN_S", "0.3")),
)
