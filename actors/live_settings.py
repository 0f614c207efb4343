"""The settings that hold in this process now: read again on SIGHUP, on `lily config reload` and on `lily queue set`.

Who needs a setting while it lives asks `now`, or has itself told with `follow`; nobody keeps one from the start.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import anyio
import msgspec

from lily.alerts.terms import Sink
from lily.alerts.terms import shown as shown_sink
from lily.errors import LilyError
from lily.identity import SUPERVISOR, Actor
from lily.log import Log
from lily.offload import Offload
from lily.queue_shapes import SettingChange
from lily.settings import Queue, Settings, load_settings, shown, values_of
from lily.workspace import Workspace

AT_START = frozenset({"store.url"})  # what a running process can't change
_REPLACE = msgspec.structs.replace


Keep = Callable[[Callable[[], Settings], Actor, str], tuple[Settings, Queue]]


class LiveSettings:
    """`now` is what is in force: the file's settings, with what `lily queue set` holds over them, and of the store the one that is open."""

    def __init__(self, workspace: Workspace, settings: Settings, *, keep: Keep, offload: Offload, log: Log) -> None:
        """`keep` reads the file where the store is told of it, for whom and why; gives what it says and the limits in force. It blocks."""
        self.now = self._file = settings
        self._workspace, self._keep, self._offload, self._log = workspace, keep, offload, log
        self._hooks: list[Callable[[Settings], None]] = []
        self._turn = anyio.Lock()  # who asks second reads what the first has read already

    def follow(self, hook: Callable[[Settings], None]) -> None:
        """Have `hook` called with the settings whenever they are read again."""
        self._hooks.append(hook)

    async def reload(self, by: Actor = SUPERVISOR, reason: str = "") -> list[SettingChange]:
        """Read them again, for `by`; gives what has changed.

        Raises `config_invalid` and what the store raises; nothing has changed then."""
        async with self._turn:
            try:
                file, queue = await self._offload(self._keep, partial(load_settings, self._workspace), by, reason)
            except LilyError as error:
                self._log.error(
                    "settings are not read again; those of before hold", code=error.code, where=error.where, error=error.message
                )
                raise
            before, self.now = self.now, _REPLACE(file, store=self.now.store, queue=queue)
            changes = differences(before, self.now, self._file, file)
            self._file = file
            for hook in self._hooks:
                hook(self.now)
            for change in changes:
                self._log.info("setting", key=change.key, before=change.before, after=change.after, effect=change.effect)
            self._log.info("settings were read again", changes=len(changes), by=by.name, request=by.request_id)
            return changes


def differences(before: Settings, after: Settings, old_file: Settings, new_file: Settings) -> list[SettingChange]:
    """What changed in force, and what the file says now that is not in force: it waits for the next start, or is held."""
    was, now, old, new = (_whole(each) for each in (before, after, old_file, new_file))
    changes = []
    for key in sorted({*was, *now, *new}):
        if key in AT_START:
            if now.get(key) != new.get(key):
                changes.append(_change(key, now, new, "next start"))
        elif was.get(key) != now.get(key):
            changes.append(_change(key, was, now, "now"))
        elif old.get(key) != new.get(key):
            changes.append(_change(key, old, new, "held"))
    return changes


def _change(key: str, before: Mapping[str, Any], after: Mapping[str, Any], effect: Literal["now", "next start", "held"]) -> SettingChange:
    return SettingChange(key=key, before=_shown(before.get(key)), after=_shown(after.get(key)), effect=effect)


def _whole(settings: Settings) -> dict[str, Any]:
    """Every value, of sinks also what is never shown of them: it may be all that has changed."""
    return values_of(settings) | {f"alerts.sinks.{name}": sink for name, sink in settings.alerts.sinks.items()}


def _shown(value: Any) -> Any:
    return shown_sink(value) if isinstance(value, Sink) else shown(value)
