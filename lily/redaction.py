"""Text without the secrets that are known, in whatever form they stand there; and, for what is shown to many, without what looks like one.

Hashes, run ids and ordinary text stay.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

from lily.secret_forms import SHORTEST, Element, forms, values

MASK = "***"
_MASK = MASK.encode()
_HEAD = 4  # elements of a form that the compiled search looks for; what follows is compared
_ENOUGH = 4  # elements of a secret that a cut text must end with to be taken for its beginning

Span = tuple[int, int]
_Ways = tuple[tuple[int, ...], frozenset[bytes]]  # the lengths that they have, the longest first, and they themselves
_Followed = tuple[dict[int, _Ways], ...]  # a form, the ways of each element by their first byte


class _Table:
    """All forms of some secrets, ready to be looked for."""

    def __init__(self, known: Iterable[str]) -> None:
        self.forms: dict[int, list[_Followed]] = defaultdict(list)  # by the first byte
        self.edge = 0  # a form whose head is not all there begins in so many last bytes
        self.reach = 0  # bytes of the longest form
        heads: dict[int, list[bytes]] = defaultdict(list)
        for form in {form: None for value in sorted(known) for form in forms(value)}:
            rest = b"".join(map(_either, form[1:_HEAD]))
            followed = tuple(map(_by_first, form))
            for first, (_, ways) in followed[0].items():
                heads[first].append(_either(tuple(way[1:] for way in form[0] if way in ways)) + rest)
                self.forms[first].append(followed)
            longest = [len(element[0]) for element in form]
            self.edge = max(self.edge, sum(longest[:_HEAD]))
            self.reach = max(self.reach, sum(longest))
        every = (re.escape(bytes([first])) + b"(?:" + b"|".join(tails) + b")" for first, tails in heads.items())
        self.search = re.compile(b"|".join(every), re.DOTALL).search

    def spans(self, data: bytes, *, partial: bool) -> tuple[list[Span], int | None]:
        """Where secrets stand, in order and apart; with `partial` also where one begins that may go on behind the end."""
        found: list[Span] = []
        at, stop = 0, len(data)
        while (hit := self.search(data, at)) is not None:
            at = hit.start() + 1
            end, open_end = self._match(data, hit.start())
            if open_end and partial:
                stop = hit.start()
                break
            if end is not None:
                _add(found, hit.start(), end)
        if not partial:
            return found, None
        for at in range(max(0, len(data) - self.edge), stop):
            if data[at] in self.forms and self._match(data, at)[1]:
                return found, _from(found, at)
        return found, None if stop == len(data) else _from(found, stop)

    def _match(self, data: bytes, at: int) -> tuple[int | None, bool]:
        """Where the longest form that begins `at` ends, and whether one goes on behind the end of the data."""
        ends: list[int] = []
        open_end = False
        for form in self.forms.get(data[at], ()):
            ended, _, more = _follow(form, data, at)
            ends += ended
            open_end |= more
        return max(ends, default=None), open_end

    def begun(self, data: bytes, at: int) -> bool:
        """Whether so much of a secret stands at the end of the data that it is taken for one."""
        return any(more and count >= _ENOUGH for _, count, more in (_follow(form, data, at) for form in self.forms.get(data[at], ())))


_table = lru_cache(maxsize=64)(_Table)  # many runs know the same secrets


class Redactor:
    """Takes given secrets out of text, bytes and plain JSON. False when it knows none: then all stays as it is."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._known: frozenset[str] = frozenset()
        self._table: _Table | None = None
        self.learn(secrets)

    def __bool__(self) -> bool:
        return self._table is not None

    @property
    def reach(self) -> int:
        """Bytes of the longest form that is looked for."""
        return self._table.reach if self._table is not None else 0

    def learn(self, secrets: Iterable[str]) -> None:
        """Take these out, too, from now on; those under 8 characters are no secrets."""
        known = self._known.union(value for secret in secrets for value in values(secret))
        if known != self._known:
            self._known, self._table = known, _table(known)

    def text(self, given: str) -> str:
        """The text without the secrets."""
        if self._table is None or len(given) < SHORTEST:
            return given
        data = given.encode("utf-8", "surrogatepass")
        clean = self.raw(data)
        return given if clean is data else clean.decode("utf-8", "surrogatepass")

    def raw(self, given: bytes, *, cut: bool = False) -> bytes:
        """The same for bytes. `cut`: more may have followed, so a secret's beginning at the end goes, too."""
        if self._table is None:
            return given
        spans, held = self._table.spans(given, partial=cut)
        if held is not None:
            begun = self._table.begun(given, held)
            spans = [*spans, (held, len(given))] if begun else self._table.spans(given, partial=False)[0]
        return _masked(given, spans, 0, len(given)) if spans else given

    def data(self, given: Any) -> Any:
        """The same for plain JSON, keys too; a number that is a secret becomes text."""
        if self._table is None:
            return given
        if isinstance(given, str):
            return self.text(given)
        if isinstance(given, Mapping):
            return {self.text(key) if isinstance(key, str) else key: self.data(value) for key, value in given.items()}
        if isinstance(given, (list, tuple)):
            return [self.data(value) for value in given]
        if type(given) in (int, float) and self.text(str(given)) != str(given):
            return MASK
        return given

    def holds(self, given: str) -> bool:
        """Whether a secret stands in the text."""
        return self.text(given) != given

    def stream(self) -> "Stream":
        """For bytes that come in pieces."""
        return Stream(self)

    def spans(self, data: bytes, *, partial: bool) -> tuple[list[Span], int | None]:
        """Where secrets stand; with `partial` also where one begins that may go on behind the end, else None."""
        return self._table.spans(data, partial=partial) if self._table is not None else ([], None)


class Stream:
    """Redacts bytes that come in pieces, however they are cut. Holds back only what may be a secret's beginning."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self.held = b""  # what waits for more to come
        self.skimmed = 0  # bytes that were let go unread

    def feed(self, piece: bytes) -> bytes:
        """What is certain now."""
        data = self.held + piece
        spans, held = self._redactor.spans(data, partial=True)
        stop = len(data) if held is None else held
        self.held = data[stop:]
        return _masked(data, spans, 0, stop)

    def skim(self, piece: bytes, size: int) -> None:
        """Take a piece of which, with all that follows, only the last `size` bytes are wanted: they are looked at in the end."""
        data = self.held + piece
        cut = max(0, len(data) - size - self._redactor.reach)
        self.skimmed += cut
        self.held = data[cut:]

    def finish(self) -> bytes:
        """What is left, once nothing more comes."""
        data, self.held = self.held, b""
        spans, _ = self._redactor.spans(data, partial=False)
        # What the cut left of a secret ends within its longest form from there.
        start = min(self._redactor.reach, len(data)) if self.skimmed else 0
        return _masked(data, [span for span in spans if span[1] > start], start, len(data))


_NONE = Redactor()
_here: ContextVar[Redactor] = ContextVar("lily_redactor", default=_NONE)


@contextmanager
def redacting(redactor: Redactor) -> Iterator[None]:
    """Have `here` give this one while the block lasts: in the block, and in the tasks and threads that it starts."""
    token = _here.set(redactor)
    try:
        yield
    finally:
        _here.reset(token)


def here() -> Redactor:
    """The redactor of the attempt that this code works for; outside of one, a redactor that knows nothing."""
    return _here.get()


def learn_here(secret: str) -> None:
    """Take this out of all that the attempt says from now on."""
    redactor = _here.get()
    if redactor is not _NONE:
        redactor.learn([secret])


def _either(element: Element) -> bytes:
    return re.escape(element[0]) if len(element) == 1 else b"(?:" + b"|".join(map(re.escape, element)) + b")"


@lru_cache(maxsize=4096)
def _by_first(element: Element) -> dict[int, _Ways]:
    made: dict[int, set[bytes]] = defaultdict(set)
    for way in element:
        made[way[0]].add(way)
    return {first: (tuple(sorted(set(map(len, ways)), reverse=True)), frozenset(ways)) for first, ways in made.items()}


def _follow(form: _Followed, data: bytes, at: int) -> tuple[Collection[int], int, bool]:
    """(where the whole form ends, how many elements are there, whether the data ends inside of it)."""
    places, size, count, open_end = [at], len(data), 0, False
    for element in form:
        ahead: set[int] = set()
        for place in places:
            if place >= size:
                open_end = True
            elif (known := element.get(data[place])) is not None:
                lengths, ways = known
                ahead.update(place + length for length in lengths if data[place : place + length] in ways)
                if place + lengths[0] > size:
                    left = data[place:]
                    open_end = open_end or any(len(way) > len(left) and way.startswith(left) for way in ways)
        if not ahead:
            return (), count, open_end
        places, count = list(ahead), count + 1
    return places, count, open_end


def _add(found: list[Span], start: int, end: int) -> None:
    if found and start < found[-1][1]:
        found[-1] = (found[-1][0], max(end, found[-1][1]))
    else:
        found.append((start, end))


def _from(found: list[Span], at: int) -> int:
    """Where to stop so that what begins `at` stays together with a secret that it overlaps."""
    while found and at < found[-1][1]:
        at = min(at, found.pop()[0])
    return at


def _masked(data: bytes, spans: Iterable[Span], start: int, stop: int) -> bytes:
    parts = []
    for first, end in spans:
        parts += [data[start:first], _MASK]
        start = end
    return b"".join([*parts, data[start:stop]])


_NAMES = (
    r"pass(?:word|wd|phrase)?(?!ed|es|_fds)|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|auth(?!or(?!iz))|credentials?|cookie"
    r"|signature"
)
_NO_NAMES = (  # that begin like one
    r"(?:auth[_-]?(?:mode|type|method|enabled|sock|url)|pass[_-]?(?:rate|count)|password[_-]?authentication|cookie[_-]?jar)(?![\w-])"
)


@lru_cache(maxsize=1)  # they take longer to compile than a command that reads may take to start
def _likely() -> tuple[tuple[re.Pattern[str], str], ...]:
    return (
        (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)", re.DOTALL), MASK),
        (re.compile(r"(://)[^\s/@]+@"), rf"\1{MASK}@"),
        (re.compile(r"\b(bearer|basic)(\s+)[\w.~+/=-]{6,}", re.IGNORECASE), rf"\1\2{MASK}"),
        (
            re.compile(
                rf"((?:\b|_|-)(?!{_NO_NAMES})(?:{_NAMES})[\w-]{{0,20}}[\"']?\s{{0,3}}[:=]\s{{0,3}})"
                r"(?:\"[^\"]*\"|'[^']*'|[^\s\"'&,;)\]}]+)",
                re.IGNORECASE,
            ),
            rf"\1{MASK}",
        ),
        (re.compile(r"\b(?:gh[pousr]_|github_pat_|glpat-|xox[abeprs]-|sk-|rk_|npm_|pypi-|AKIA|ASIA|AIza|ya29\.)[\w.-]{8,}"), MASK),
        (re.compile(r"\beyJ[\w-]{8,}\.[\w-]{4,}(?:\.[\w-]*)?"), MASK),
        (re.compile(r"(?<![\w+/])[A-Za-z0-9+/]{24,}={1,2}"), MASK),
        # Letters of both cases with digits: no word, no path, and no hash in hex.
        (re.compile(r"(?<![\w-])(?=[\w-]*[a-z])(?=[\w-]*[A-Z])(?=[\w-]*\d)[\w-]{32,}"), MASK),
    )


def redacted(text: str, secrets: Iterable[str] = ()) -> str:
    """`text` with the given secrets, in any form, and all that looks like one replaced by `***`."""
    text = Redactor(secrets).text(text)
    for pattern, instead in _likely():
        text = pattern.sub(instead, text)
    return text


def references(value: Any) -> Iterator[str]:
    """Every `{secret: env:NAME}` inside plain JSON, as `env:NAME`."""
    if isinstance(value, dict):
        if value.keys() == {"secret"} and isinstance(value["secret"], str):
            yield value["secret"]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)
