"""The shapes of the documents as pydantic models, for frameworks that describe themselves so.

Made of the types in `document`, and so never different from what is sent. For type checkers they
are these types.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, reduce
from operator import or_
from types import MappingProxyType, UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Final,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)  # fmt: skip

import msgspec
from pydantic import BaseModel, ConfigDict, Field, create_model

from headway import document
from headway.openapi import openapi

__all__ = [
    "MODELS", "JobAttempts", "JobBatch", "JobDocument", "JobEntry", "JobFigures", "JobHealth",
    "JobLog", "JobPage", "JobProblem",
]  # fmt: skip


@cache
def _model(shape: type) -> type[BaseModel]:
    """A model of a TypedDict or a Struct, named so that it is told from what an app has itself."""
    fields: dict[str, Any] = {}
    left_out = _left_out(shape)
    for name, hint in get_type_hints(shape, include_extras=True).items():
        fields[name] = (_hint(hint), left_out.get(name, ...))
    name = f"Job{shape.__name__.removesuffix('Reading')}"
    text = " ".join((shape.__doc__ or "").split())
    return create_model(name, __doc__=text, __module__=__name__, **fields)


def _left_out(shape: type) -> dict[str, Any]:
    """What a field stands for that is not sent."""
    if is_typeddict(shape):
        return {}
    fields = msgspec.structs.fields(shape)
    given = {f.name: f.default for f in fields if f.default is not msgspec.NODEFAULT}
    made = {
        f.name: f.default_factory() for f in fields if f.default_factory is not msgspec.NODEFAULT
    }
    return {**given, **made}


def _hint(hint: Any) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return Annotated[_hint(args[0]), *(_field(note) for note in args[1:])]
    if origin in {Union, UnionType}:
        return reduce(or_, map(_hint, args))
    if origin in {list, tuple}:
        return origin[tuple(map(_hint, args))]
    if is_typeddict(hint) or (isinstance(hint, type) and issubclass(hint, msgspec.Struct)):
        return _model(hint)
    return hint


def _field(note: msgspec.Meta) -> Any:
    return Field(
        ge=note.ge, le=note.le, pattern=note.pattern, json_schema_extra=note.extra_json_schema
    )


def _as_told(schema: dict[str, Any]) -> None:
    schema |= openapi("")["components"]["schemas"]["Problem"]
    schema["title"] = "JobProblem"


class JobProblem(BaseModel):
    """Why not, as RFC 9457 has it. `code` never changes; the words may."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_as_told)

    type: str
    title: str
    status: int
    code: str
    detail: str | None = None


if TYPE_CHECKING:
    from headway.document import Attempts as JobAttempts
    from headway.document import Batch as JobBatch
    from headway.document import Document as JobDocument
    from headway.document import Entry as JobEntry
    from headway.document import Figures as JobFigures
    from headway.document import Health as JobHealth
    from headway.document import Log as JobLog
    from headway.document import Page as JobPage
else:
    JobAttempts = _model(document.Attempts)
    JobBatch = _model(document.Batch)
    JobDocument = _model(document.Document)
    JobEntry = _model(document.Entry)
    JobFigures = _model(document.Figures)
    JobHealth = _model(document.Health)
    JobLog = _model(document.Log)
    JobPage = _model(document.Page)

MODELS: Final[Mapping[str, type]] = MappingProxyType({
    "Attempts": JobAttempts,
    "Batch": JobBatch,
    "Document": JobDocument,
    "Entry": JobEntry,
    "Figures": JobFigures,
    "Health": JobHealth,
    "Log": JobLog,
    "Page": JobPage,
})  # fmt: skip
"""By the names that the shapes have in the surface's own document."""
