"""For the reference: a default that is a named constant is shown as its value."""

from __future__ import annotations

from typing import Any

import griffe


class NamedDefaults(griffe.Extension):
    """`lease_s: float = LEASE_S` says nothing to a reader, `= 10.0` does."""

    def on_package(self, *, pkg: griffe.Module, loader: griffe.GriffeLoader, **kwargs: Any) -> None:
        """Look through all functions, when all constants are known."""
        self._look(pkg, loader)

    def _look(self, holder: griffe.Object, loader: griffe.GriffeLoader) -> None:
        for member in holder.members.values():
            if isinstance(member, griffe.Function):
                self._settle(member, loader)
            elif isinstance(member, griffe.Module | griffe.Class):
                self._look(member, loader)

    def _settle(self, function: griffe.Function, loader: griffe.GriffeLoader) -> None:
        for parameter in function.parameters:
            if isinstance(parameter.default, griffe.ExprName):
                constant = loader.modules_collection[parameter.default.canonical_path]
                parameter.default = constant.value
