"""What code of others raises, and what is said of it."""


class Unreadable(Exception):
    """Its text can't be had."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


RAISED: list[tuple[BaseException, str]] = [
    (SystemExit(3), "SystemExit: 3"),
    (KeyboardInterrupt(), "KeyboardInterrupt"),
    (BaseExceptionGroup("two", [SystemExit(1), ValueError("x")]), "BaseExceptionGroup: two"),
    (Unreadable(), "text can't be read"),
]
