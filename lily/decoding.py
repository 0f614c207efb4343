"""Types that are decoded in several threads."""

from typing import Any

import msgspec


def prepared(*kinds: Any) -> None:
    """Have msgspec work out what these types are made of, while their module is imported.

    Else it does so when one is decoded first, and two threads that do that at once crash the process: the second reads what the first
    has only half made (msgspec 0.22, for a type that has others inside).
    """
    for kind in kinds:
        msgspec.json.Decoder(kind)
