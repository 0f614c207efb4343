"""The textual reference that APScheduler stores with every job. It must never move."""

from inspect import signature


def fire(job_id: str, version: int) -> None:
    """Never called: the executor hands a due window to the scheduler bridge instead."""


# APScheduler asks for it with every job that is added; working it out ten thousand times would take a second.
fire.__signature__ = signature(fire)  # type: ignore[attr-defined]
