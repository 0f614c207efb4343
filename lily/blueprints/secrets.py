"""Secrets in bindings: a reference stands in the spec, the value is read when it is used and stored nowhere."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

from lily.blueprints.contract import BlueprintError


class Secret(BaseModel):
    """`{secret: env:NAME}`: the value of an environment variable of the process that runs the job."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    secret: Annotated[str, StringConstraints(pattern=r"^env:[A-Za-z_][A-Za-z0-9_]*$")]


Value = str | Secret


def revealed(value: Value, environ: Mapping[str, str] | None = None) -> str:
    """The text that `value` stands for. Raises BlueprintError, not retryable, for a variable that is not set."""
    return value if isinstance(value, str) else secret_text(value.secret, environ)


def secret_text(reference: str, environ: Mapping[str, str] | None = None) -> str:
    """The secret at `env:NAME` or `file:PATH` (in settings; the last line end is cut). Raises BlueprintError, not retryable."""
    kind, _, name = reference.partition(":")
    if kind == "file":
        try:
            return Path(name).expanduser().read_text(encoding="utf-8").removesuffix("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise BlueprintError(f"the secret in {name} can't be read: {error}", retryable=False, path=name) from None
    found = (os.environ if environ is None else environ).get(name)
    if found is None:
        raise BlueprintError(f"the environment variable {name} is not set, and a secret is taken from it", retryable=False, variable=name)
    return found
