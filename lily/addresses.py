"""Addresses with a password inside, such as a database's: the password found, and the address shown without it."""

import re
from urllib.parse import unquote, unquote_plus

# The user's name ends at the first colon, the password at the last @: one that was not encoded may have a / or an @ in it.
# Compiled when they are needed: settings are read by every command.
_USER = r"(?i)[a-z][a-z0-9+.-]{0,30}://[^\s:/?#@]*:(?=\S)"
# A text that is one address and nothing else may have a blank in its password, too. It is none where it goes on after a port.
_ALONE = r"(?i)\A([a-z][a-z0-9+.-]{0,30}://[^\s:/?#@]*):(?!\d+[?\s])([^/\r\n]+)@([^\s@]*)\Z"
_STORE = r"postgres(?:ql)?(?:\+psycopg)?://"
# As SQLAlchemy takes a setting apart, up to the password, and up to the port. In other text a line that goes on after a port is
# not one address.
_STORED = rf"(?i)\A({_STORE}[^:/]*):([^@]+)@([^\s@]*)"
_LIKE_STORED = rf"(?i)\A({_STORE}[^:/\r\n]*):(?!\d+[/?\s])([^@\r\n]+)@([^\s@]*)"
_PORT = r"[^:]+://(?:[^:/]*(?::[^@]*)?@)?(?:\[[^/?]+\]|[^/:?]+)?(?::([^/?]*))?"
_QUERY = r"(?i)([?&](?:ssl)?password=)([^&\s#]+)"
# In a setting, a line that begins with an address is nothing else: there neither a blank nor a # ends a password.
_LINE, _QUERY_OF_LINE = r"(?i)[a-z][a-z0-9+.-]{0,30}://[^\r\n]*", r"(?i)([?&](?:ssl)?password=)([^&]+)"


def passwords_in(text: str, *, setting: bool = False) -> list[str]:
    """The passwords of the addresses in a text, as they stand there and decoded. A `setting` that begins with the address of a store is
    nothing else."""
    text = text.strip()
    alone, stored = _forms(setting)
    found = [password for _, password, _ in re.findall(alone, text)]
    found += [password for _, password, _ in map(_parted, text.split()) if password]
    found += [password for _, password, _ in re.findall(stored, text)]
    for form in dict.fromkeys((_query(text), _QUERY)):
        found += [password for _, password in re.findall(form, text)]
    return list(dict.fromkeys(form for password in found for form in (password, unquote(password), unquote_plus(password))))


def without_passwords(text: str, *, setting: bool = False) -> str:
    """The same text with `***` for each password of an address in it, however short."""
    address = text.strip()  # a block of YAML ends with a line feed
    alone, stored = _forms(setting)
    hidden = re.sub(r"\S+", _masked, re.sub(alone, r"\1:***@\3", address))
    hidden = re.sub(stored, r"\1:***@\3", hidden)
    return text.replace(address, re.sub(_query(address), r"\1***", hidden), 1)


def _forms(setting: bool) -> tuple[str, str]:
    return _ALONE, _STORED if setting else _LIKE_STORED


def _parted(word: str) -> tuple[str, str, str]:
    """What stands before the password of an address in a word without blanks, the password, and what follows. Empty where there is none.

    One pattern for all of it would look through the rest of the word at each colon in it.
    """
    before, _, after = word.rpartition("@")
    user = re.search(_USER, before)
    return (before[: user.end()], before[user.end() :], f"@{after}") if user else ("", "", "")


def _masked(word: re.Match[str]) -> str:
    before, password, after = _parted(word[0])
    return f"{before}***{after}" if password else word[0]


def _query(text: str) -> str:
    return _QUERY_OF_LINE if re.fullmatch(_LINE, text) else _QUERY


def wrong_store(url: str) -> tuple[str, str] | None:
    """What of this `store.url` keeps a store from being there, and what to do; nothing of the address is in either."""
    # What reads an address ends some of its parts at a line's end, and takes a blank at an end for a part of it.
    if re.search(r"[\x00-\x1f\x7f]|\A\s|\s\Z", url):
        return "has a line end or a blank where none belongs", "write it on one line, in quotes"
    if not url or url.startswith("sqlite:///"):
        return None
    if not re.match(_STORE, url):
        return "must begin with sqlite:/// or postgresql://", "leave it empty for db/lily.sqlite3"
    # One that would be read otherwise than it was meant puts a part of its password where it is shown.
    if url.partition("?")[0].count("@") > 1:
        return "has more than one @", "write one inside a password as %40"
    found = re.match(_PORT, url)
    port = found[1] if found else None
    if port is not None and not (re.fullmatch(r"[0-9]{1,5}", port) and 0 < int(port) < 65_536):
        return "can't be read as an address", "postgresql://user@host:5432/database is one"
    return None
