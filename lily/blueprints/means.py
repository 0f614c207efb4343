"""What the machine has none left of at this moment, told from what is wrong with the file or the code that needed it."""

import errno

from lily.errors import Code, LilyError

_SPENT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


def is_spent(error: BaseException) -> bool:
    """Whether descriptors or memory had run out: the same may well go a moment later."""
    return (isinstance(error, OSError) and error.errno in _SPENT) or (isinstance(error, LilyError) and error.detail.get("spent") is True)


def spent(what: str, error: BaseException) -> LilyError:
    """The error of whoever wanted to do `what`; `is_spent` knows it."""
    if isinstance(error, LilyError):
        return error
    hint = "let the process have more (`ulimit -n`, or LimitNOFILE= of its unit), or let it do less at a time (queue.max_concurrent)"
    return LilyError(Code.BLUEPRINT_COMPILE_FAILED, f"{what}: {getattr(error, 'strerror', None) or error}", hint=hint, spent=True)
