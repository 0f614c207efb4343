"""Taking secrets out of what is given to others: those that the workspace refers to, and all that looks like one."""

import base64
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from lily.addresses import passwords_in
from lily.blueprints.contract import BlueprintError
from lily.blueprints.secrets import secret_text
from lily.redaction import MASK, redacted, references
from lily.settings import Settings
from lily.spec_files import SUFFIXES
from lily.workspace import Workspace

_LEAST = 4  # characters: a shorter secret would take ordinary words away
_SHORTEST = 8  # characters of a value that is a secret by its name alone
_SECRETS = re.compile(
    r"pass(?:word|wd|phrase|code)|(?<!com)(?<!by)pass(?:_|$|\d)|(?:^|_)(?:auth|pat)(?:_|$|\d)|authorization|pwd|secret|token"
    r"|api_?key|access_?key|private_?key|credential|cookie",
    re.IGNORECASE,
)
_NO_SECRETS = re.compile(  # what such words also are the beginning of
    r"(?:^|_)(?:auth_(?:mode|type|method|enabled|sock|url)|pass_(?:fds|rate|count)|password_authentication|cookie_jar)$", re.IGNORECASE
)
_AMOUNTS = re.compile(
    r"(?:^|_)tokens?_(?:used|count|usage|limit)$|(?:^|_)(?:max|min|prompt|completion|total|input|output|cached|reasoning)_tokens$",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"[0-9.,_]+")
_JOINTS = re.compile(r"[^A-Za-z0-9]+|(?<=[a-z0-9])(?=[A-Z])")  # between the words of a name, however it is spelled
_GIVEN = re.compile(r"(-{0,2}[A-Za-z_][\w.-]*)=(.*)", re.DOTALL)
_OPTION = re.compile(r"--?[A-Za-z][\w.-]*")
# With a blank after it, what follows is as often the next word of a sentence.
_OPTION_IN_TEXT = re.compile(rf"(?<![\w.-])({_OPTION.pattern})=(\"[^\"]*\"|'[^']*'|[^\s\"']+)")
_PLACES = {"PWD", "OLDPWD"}  # variables that say where something is
_REFERENCES = ("env:", "file:")
_MOST_BYTES = 1024 * 1024  # of a job file


def secrets_of(workspace: Workspace, settings: Settings, specs: Iterable[Any], environment: Mapping[str, str]) -> set[str]:
    """All secrets that can be known: what settings, job files and pinned specs refer to, passwords in addresses, and the values of
    environment variables that are named like secrets."""
    plain = msgspec.to_builtins(settings)
    named = {*references(plain), *(each for spec in specs for each in references(spec)), *_in_job_files(workspace)}
    known = {value for reference in named for value in _value(reference, environment, workspace.root)}
    known |= set(passwords_in(settings.store.url, setting=True))
    return known | {
        value for name, value in environment.items() if is_secret(name, value) and name not in _PLACES and len(value) >= _SHORTEST
    }


def _in_job_files(workspace: Workspace) -> Iterator[str]:
    from lily.yaml_reader import read_yaml

    for path in sorted(workspace.jobs.glob("*")) if workspace.jobs.is_dir() else ():
        if path.name.endswith(SUFFIXES) and path.is_file() and path.stat().st_size <= _MOST_BYTES:
            body = path.read_bytes()
            if b"secret" in body:
                yield from references(read_yaml(body).value)


def _value(reference: str, environment: Mapping[str, str], base: Path) -> Iterator[str]:
    try:
        value = secret_text(reference, environment, base=base)
    except (BlueprintError, OSError):
        return  # it can't be read, so nothing that Lily wrote can hold it
    yield value
    yield from (line for line in value.splitlines() if len(line) >= _SHORTEST)


def is_secret(name: str, value: Any) -> bool:
    """Whether what is called so is a secret. How much of something there is, is none."""
    plain = _plain(name)
    return _SECRETS.search(_NO_SECRETS.sub("", plain)) is not None and not (_is_amount(value) and _AMOUNTS.search(plain))


def _plain(name: str) -> str:
    return _JOINTS.sub("_", name).strip("_")


def _is_amount(value: Any) -> bool:
    return _NUMBER.fullmatch(value) is not None if isinstance(value, str) else value is None or type(value) in (int, float)


class Scrubber:
    """Takes known secrets, in the forms in which programs write them, and all that looks like one out of text and plain JSON."""

    def __init__(self, secrets: Iterable[str]) -> None:
        known = {secret for secret in secrets if len(secret.strip()) >= _LEAST}
        self._known = sorted(
            known | {form for secret in known for form in encodings(secret) if len(form) >= _LEAST}, key=lambda form: (-len(form), form)
        )

    def text(self, given: str) -> str:
        """The text without them."""
        return self._again(_OPTION_IN_TEXT.sub(_without_value, redacted(given, self._known)))

    def json(self, given: Any) -> Any:
        """The same for plain JSON: keys, values, and all of what stands under a name that is one of secrets."""
        if isinstance(given, str):
            return self.text(given)
        if isinstance(given, dict):
            return {self.text(str(key)): self._under(str(key), value) for key, value in given.items()}
        if isinstance(given, list):
            return [self._word(each, before) for before, each in zip(["", *given], given, strict=False)]
        if type(given) in (int, float) and self.text(str(given)) != str(given):
            return MASK
        return given

    def _word(self, value: Any, before: Any) -> Any:
        """An element of a list, which may be the words of a command line."""
        if isinstance(before, str) and _OPTION.fullmatch(before) and is_secret(before, value):
            return self._hidden(value)
        given = _GIVEN.fullmatch(value) if isinstance(value, str) else None
        return f"{self.text(given[1])}={self._hidden(given[2])}" if given and is_secret(given[1], given[2]) else self.json(value)

    def _under(self, name: str, value: Any) -> Any:
        if not is_secret(name, value):
            return self.json(value)
        amounts = isinstance(value, dict) and _AMOUNTS.search(_plain(name)) is not None
        if isinstance(value, dict) and value.keys() == {"value", "origin"}:  # a setting, as the bundle shows it
            return {"value": self._hidden(value["value"], amounts), "origin": self.json(value["origin"])}
        return self._hidden(value, amounts)

    def _hidden(self, value: Any, amounts: bool = False) -> Any:
        """What stands under the name of a secret: no text of it is shown, and no long number but among `amounts`; short ones are
        limits."""
        if isinstance(value, str):
            return self.text(value) if value.startswith(_REFERENCES) or not value else MASK
        if isinstance(value, dict):
            return {self.text(str(key)): self._hidden(each, amounts and not is_secret(str(key), each)) for key, each in value.items()}
        if isinstance(value, list):
            return [self._hidden(each) for each in value]
        return MASK if type(value) in (int, float) and len(str(value)) >= _SHORTEST and not amounts else self.json(value)

    def lines(self, given: str) -> str:
        """JSON lines, each as JSON where it is some."""
        # At line feeds alone: what else ends a line for Python may stand in the middle of JSON, and of a secret.
        return "".join(self._line(line) + "\n" for line in given.removesuffix("\n").split("\n")) if given else ""

    def _line(self, line: str) -> str:
        try:
            value = self.json(json.loads(line, parse_constant=_no_json))
        except (ValueError, RecursionError):
            return self.text(line)
        return self._again(json.dumps(value, ensure_ascii=False))

    def document(self, given: Any) -> str:
        """Plain JSON as text."""
        return self._again(json.dumps(self.json(given), ensure_ascii=False, indent=2)) + "\n"

    def _again(self, given: str) -> str:
        """Without what came together only in the text."""
        for secret in self._known:
            given = given.replace(secret, MASK)
        return given


def _without_value(found: re.Match[str]) -> str:
    return f"{found[1]}={MASK}" if is_secret(found[1], found[2]) else found[0]


def _no_json(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")


def encodings(secret: str) -> set[str]:
    """A secret as JSON, Python and URLs spell it, in hexadecimal, and what of it shows in base64 wherever it begins there."""
    plain = secret.encode("utf-8", "surrogateescape")
    escaped: list[Callable[[str], str]] = [
        json.dumps,
        lambda text: json.dumps(text, ensure_ascii=False),
        repr,
        lambda text: json.dumps(json.dumps(text)[1:-1]),
    ]
    made = {write(secret)[1:-1] for write in escaped}
    made |= {plain.hex(), plain.hex().upper(), "".join(f"%{number:02x}" for number in plain), "".join(f"%{number:02X}" for number in plain)}
    for shift in range(3):
        coded = base64.b64encode(b"\0" * shift + plain).decode()
        core = coded[-(-8 * shift // 6) : 8 * (shift + len(plain)) // 6]
        made |= {core, core.replace("+", "-").replace("/", "_")}
    return {form for form in made if form}


def environment_now() -> Mapping[str, str]:
    """The environment in which this process was started."""
    return dict(os.environ)


def tail_of(path: Path, most: int) -> tuple[str, bool]:
    """The end of a file as text, from a whole line on; whether something was left out. Raises OSError."""
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - most))
        body = file.read(most)
    if size > most:
        body = body.partition(b"\n")[2]
    return body.decode("utf-8", "backslashreplace"), size > most
