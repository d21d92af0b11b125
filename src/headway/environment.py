"""Options that were left out: the app's config may have them, or else the environment.

Only the doors and the command look there. What is given in code wins.
"""

from __future__ import annotations

import os
from collections.abc import Container, Mapping
from types import MappingProxyType
from typing import Any, Final

from headway._address import url_of

__all__ = ["found"]

ENVIRONMENT: Final = ("url", "prefix", "state_dir", "secret")
CONFIG: Final = (*ENVIRONMENT, "lease_s", "drain_s", "keep_s", "path")
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


def found(given: Container[str], config: Mapping[str, Any] = _NOTHING) -> dict[str, Any]:
    """What *config* has as HEADWAY_URL and the like, else the environment; without what is *given*.

    Args:
        given: names of options.
    """
    options: dict[str, Any] = {}
    for name in CONFIG:
        key = f"HEADWAY_{name.upper()}"
        if name in given:
            continue
        if config.get(key) is not None:
            options[name] = config[key]
        elif name in ENVIRONMENT and os.environ.get(key):
            options[name] = os.environ[key]
    if "url" in options:
        options["url"] = url_of(options["url"])
    return options
