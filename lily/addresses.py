"""Addresses with a password inside, such as a database's: the password found, and the address shown without it."""

import re
from urllib.parse import unquote

# The user's name ends at the first colon, the password at the last @: one that was not encoded may have a / or an @ in it.
# Compiled when they are needed: settings are read by every command.
_ADDRESS = r"(?i)([a-z][a-z0-9+.-]{0,30}://[^\s:/?#@]*):(\S+)@([^\s@]*)"
# A text that is one address and nothing else may have a blank in its password, too. It is none where it goes on after a port.
_ALONE = r"(?i)\A([a-z][a-z0-9+.-]{0,30}://[^\s:/?#@]*):(?!\d+\s)([^/\r\n]+)@([^\s@]*)\Z"
_QUERY = r"(?i)([?&](?:ssl)?password=)([^&\s#]+)"


def passwords_in(text: str) -> list[str]:
    """The passwords of the addresses in a text, as they stand there and decoded."""
    found = [password for form in (_ALONE, _ADDRESS) for _, password, _ in re.findall(form, text)]
    found += [password for _, password in re.findall(_QUERY, text)]
    return list(dict.fromkeys(form for password in found for form in (password, unquote(password))))


def without_passwords(text: str) -> str:
    """The same text with `***` for each password of an address in it, however short."""
    return re.sub(_QUERY, r"\1***", re.sub(_ADDRESS, r"\1:***@\3", re.sub(_ALONE, r"\1:***@\3", text)))
