"""What the machine has none left of at this moment, told from what is wrong with the file or the code that needed it."""

import errno
import os

from lily.errors import Code, LilyError

_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})
_SPENT = _DESCRIPTORS | {errno.ENOMEM}
_ROOM = 8  # descriptors: with fewer, they had likely run out when the error came, and others have closed some since

HINT = "let the process have more (`ulimit -n`, or LimitNOFILE= of its unit), or let it do less at a time (queue.max_concurrent)"


def is_spent(error: BaseException) -> bool:
    """Whether descriptors or memory had run out where Lily itself needed them: the same may well go a moment later."""
    return (isinstance(error, OSError) and error.errno in _SPENT) or (isinstance(error, LilyError) and error.detail.get("spent") is True)


def is_without_descriptors(error: BaseException) -> bool:
    """Whether code of others raised this because this process has no descriptor left, or because something could not be loaded now.

    Such code meets limits of its own as well (of inotify instances, say), and may raise what it likes.
    """
    return is_spent(error) and (not isinstance(error, OSError) or (error.errno in _DESCRIPTORS and not has_descriptors()))


def is_doubtful(error: BaseException) -> bool:
    """Whether it says that no descriptor was left while there are some now: a limit of that code's own, or others have closed theirs since.

    One time nobody can tell. What fails so again and again meets a limit of its own.
    """
    return isinstance(error, OSError) and error.errno in _DESCRIPTORS and has_descriptors()


def has_descriptors() -> bool:
    """Whether this process can open a few more files now."""
    opened: list[int] = []
    try:
        while len(opened) < _ROOM:
            opened.append(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno not in _DESCRIPTORS
    finally:
        for each in opened:
            os.close(each)
    return True


def spent(what: str, error: BaseException) -> LilyError:
    """The error of whoever wanted to do `what`; `is_spent` knows it."""
    if isinstance(error, LilyError):
        return error
    return LilyError(Code.BLUEPRINT_COMPILE_FAILED, f"{what}: {getattr(error, 'strerror', None) or error}", hint=HINT, spent=True)
