"""What the models of a job spec are made of."""

from collections.abc import Callable

from pydantic import AfterValidator, BaseModel, ConfigDict
from pydantic_core import PydanticCustomError


class Part(BaseModel):
    """What every part of a spec has in common: frozen, no unknown keys, no coercion, finite numbers.

    A field's description says what is accepted; diagnostics quote it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True)


def checked(check: Callable[[str], str | None]) -> AfterValidator:
    """A validator of text from a check that says what is wrong, or None."""

    def apply(text: str) -> str:
        wrong = check(text)
        if wrong:
            # The sentence is not a template: braces in it are the user's own.
            raise PydanticCustomError("said", "{said}", {"said": wrong})
        return text

    return AfterValidator(apply)
