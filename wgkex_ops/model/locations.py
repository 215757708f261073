"""Where a gateway is, as operators name it and nodes ask for it."""

import re
from typing import Final

_LOCATION: Final = re.compile(r"[\w.-]{1,64}", re.ASCII)


def parse_location(value: object) -> str | None:
    """The location that a value names, in lower case: its case means nothing.

    Returns:
        None if it is not a text of 1 to 64 letters, digits, ``.``, ``_`` and ``-``.
    """
    return value.lower() if isinstance(value, str) and _LOCATION.fullmatch(value) else None
