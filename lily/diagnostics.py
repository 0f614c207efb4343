"""What is wrong with a file, where, and what would be right."""

from collections.abc import Sequence

import msgspec

from lily.errors import Code, LilyError


class Diagnostic(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One violation. `path` is relative to the workspace; line and column count from 1; `field` is dotted, empty for the whole file."""

    path: str
    line: int
    column: int
    field: str
    code: str
    message: str
    hint: str = ""

    @property
    def where(self) -> str:
        """`file:line:column`, as editors and terminals open it."""
        return f"{self.path}:{self.line}:{self.column}"


def to_error(found: Sequence[Diagnostic]) -> LilyError:
    """The first of several diagnostics as an error; all of them stand in its detail."""
    first = found[0]
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    message = f"{first.field}: {first.message}" if first.field else first.message
    return LilyError(
        Code(first.code),
        message + more,
        where=first.where,
        hint=first.hint,
        diagnostics=[msgspec.to_builtins(each) for each in found],
    )
