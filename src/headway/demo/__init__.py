"""The demo behind `headway demo`: one page where real work of several kinds can be watched.

An app like any other: it uses only what the library offers to all. `import headway` never loads it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headway.errors import HeadwayError

if TYPE_CHECKING:
    from quart import Quart

__all__ = ["make_app"]


def make_app(**options: Any) -> Quart:
    """Make the demo app.

    Args:
        options: of `headway.Headway`, and `sizes`: how much work each kind does.

    Raises:
        HeadwayError: Quart is not installed; the message says how to install it.
    """
    try:
        from headway.demo.page import build
    except ModuleNotFoundError as error:
        if error.name != "quart":
            raise
        raise HeadwayError(
            "the demo needs Quart, which is not installed here: pip install 'headway[quart]'"
        ) from error
    return build(**options)
