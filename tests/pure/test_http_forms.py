"""What an HTTP answer says of the next request."""

import pytest

from lily.http_forms import asked_pause

DATE = "Fri, 15 May 2026 10:00:00 GMT"


@pytest.mark.parametrize(
    ("headers", "pause"),
    [
        ({}, 0),
        ({"retry-after": " 90 "}, 90),
        ({"retry-after": "0"}, 0),
        ({"retry-after": "999999999999"}, 99_999),
        ({"date": DATE, "retry-after": "Fri, 15 May 2026 10:02:30 GMT"}, 150),
        ({"date": DATE, "retry-after": "Friday, 15-May-26 10:02:30 GMT"}, 150),
        ({"date": DATE, "retry-after": "Fri, 15 May 2999 10:00:00 GMT"}, 99_999),
        ({"date": DATE, "retry-after": "Fri, 15 May 2026 09:00:00 GMT"}, 0),
        ({"date": DATE, "retry-after": "Fri, 99 May 2026 10:00:00 GMT"}, 0),
        ({"date": DATE, "retry-after": "Fri, 15 May 2026 10:02:30 -0000"}, 0),
        ({"date": "today", "retry-after": "Fri, 15 May 2026 10:02:30 GMT"}, 0),
        ({"retry-after": "Fri, 15 May 2026 10:02:30 GMT"}, 0),
        ({"date": DATE, "retry-after": "soon"}, 0),
        ({"date": DATE, "retry-after": "-5"}, 0),
        ({"date": DATE, "retry-after": "1.5"}, 0),
        ({"date": DATE, "retry-after": "\xb2"}, 0),
    ],
)
def test_a_server_says_how_long_it_wants_to_be_left_alone(headers: dict[str, str], pause: float) -> None:
    """In seconds, or until a date on its own clock; what is neither is nothing."""
    assert asked_pause(headers) == pause
