"""Why an alert did not reach a sink."""


class SinkError(Exception):
    """Nobody has the message. `retry_after` is how many seconds the other side wants to be left alone, 0 when it did not say."""

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after
