"""Secrets in bindings: a reference stands in the spec, the value is read when it is used and stored nowhere."""

import os
import re
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, WithJsonSchema
from pydantic_core import PydanticCustomError

from lily.blueprints.contract import BlueprintError
from lily.blueprints.means import is_spent
from lily.blueprints.schemas import UNSHOWN
from lily.redaction import learn_here

LARGEST = 64 * 1024  # bytes of a file that holds a secret
_FORM = r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:[^\x00-\x1f\x7f]+)$"


def _reference(text: str) -> str:
    if re.fullmatch(_FORM[1:-1], text) is None:
        raise PydanticCustomError(UNSHOWN, "a reference is expected, env:NAME or file:PATH, and never the secret itself")
    return text


class Secret(BaseModel):
    """`{secret: env:NAME}`: a variable of the process that runs the job; `{secret: file:PATH}`: the text of a file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    secret: Annotated[str, AfterValidator(_reference), WithJsonSchema({"type": "string", "pattern": _FORM})]


Value = str | Secret


def revealed(value: Value, environ: Mapping[str, str] | None = None, *, base: Path | None = None) -> str:
    """The text that `value` stands for. Raises BlueprintError for a secret that is not there; retryable where it just can't be read now."""
    return value if isinstance(value, str) else secret_text(value.secret, environ, base=base)


def secret_text(reference: str, environ: Mapping[str, str] | None = None, *, base: Path | None = None) -> str:
    """The secret at `env:NAME` or `file:PATH` (from `base` on where it is relative; the last line end is cut).

    Whatever an attempt reads here is redacted in all that the attempt says from now on. Raises BlueprintError as `revealed` does.
    """
    kind, _, name = reference.partition(":")
    found = _in_file(name, base) if kind == "file" else (os.environ if environ is None else environ).get(name)
    if found is None:
        raise BlueprintError(f"the environment variable {name} is not set, and a secret is taken from it", retryable=False, variable=name)
    learn_here(found)
    return found


def _in_file(name: str, base: Path | None) -> str:
    try:
        path = (base or Path()) / Path(name).expanduser()
        # Never waits: what stands there may be a pipe.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError("it is not a file")
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise OSError(f"it has more than {LARGEST // 1024} KiB")
        return data.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise BlueprintError(f"the secret in {name} can't be read: it is not UTF-8", retryable=False, path=name) from None
    except (OSError, RuntimeError, ValueError) as error:  # a home folder that nobody knows; a name that no file can have
        raise BlueprintError(
            f"the secret in {name} can't be read: {getattr(error, 'strerror', None) or error}", retryable=is_spent(error), path=name
        ) from None


def values_of(named: Iterable[str], base: Path | None = None, environ: Mapping[str, str] | None = None) -> list[str]:
    """The values of those references that this process can read."""
    found, environ = [], os.environ if environ is None else environ
    for reference in dict.fromkeys(named):
        kind, _, name = reference.partition(":")
        if kind == "env":  # most that are not set: every attempt asks for that of the language model
            if value := environ.get(name):
                found.append(value)
        elif kind == "file":
            with suppress(BlueprintError):
                found.append(secret_text(reference, base=base))
    return found
