"""Passwords in addresses: found, taken out, and not seen where there is none."""

import pytest

from lily.addresses import passwords_in, without_passwords


@pytest.mark.parametrize(
    ("text", "shown", "passwords"),
    [
        ("postgresql://me:correct horse@db/x", "postgresql://me:***@db/x", ["correct horse"]),
        ("at postgresql://me:a%40b@db/x, and more", "at postgresql://me:***@db/x, and more", ["a%40b", "a@b"]),
        ("postgresql://me@db/x?password=hidden&sslmode=off", "postgresql://me@db/x?password=***&sslmode=off", ["hidden"]),
        ("https://host:8080 is down, mail admin@example.org", "https://host:8080 is down, mail admin@example.org", []),
        ("https://host:8080/path", "https://host:8080/path", []),
    ],
)
def test_a_password_is_found_and_taken_out_and_a_port_is_none(text: str, shown: str, passwords: list[str]) -> None:
    assert without_passwords(text) == shown
    assert passwords_in(text) == passwords
