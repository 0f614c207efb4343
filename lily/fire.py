"""The textual reference that APScheduler stores with every job. It must never move."""


def fire(job_id: str, version: int) -> None:
    """Never called: the executor hands a due window to the scheduler bridge instead."""
