"""What `lily selftest ... --json` prints."""

import msgspec


class MatrixCell(msgspec.Struct, kw_only=True):
    """A transition met in one way. `broken` says which promises were, and is empty when all held."""

    transition: str
    how: str
    broken: list[str]
    seconds: float


class Selftest(msgspec.Struct, kw_only=True):
    """`lily selftest crash|disk|clock|power --json`: promises, how often each was checked, where one was broken, what was not tested"""

    seed: int | None
    matrix: list[MatrixCell]
    promises: dict[str, int]
    broken: list[str]
    left_out: list[str]
    report: list[str]


SELFTEST_SHAPES: dict[str, type[msgspec.Struct]] = {"selftest": Selftest}
