"""Passwords in addresses: found, taken out, and not seen where there is none."""

import time

import pytest

from lily.addresses import passwords_in, without_passwords, wrong_store


@pytest.mark.parametrize(
    ("text", "shown", "passwords"),
    [
        ("postgresql://me:correct horse@db/x", "postgresql://me:***@db/x", ["correct horse"]),
        ("at postgresql://me:a%40b@db/x, and more", "at postgresql://me:***@db/x, and more", ["a%40b", "a@b"]),
        ("postgresql://me@db/x?password=hidden&sslmode=off", "postgresql://me@db/x?password=***&sslmode=off", ["hidden"]),
        (
            "postgresql://db/x?password=correct horse&sslmode=off",
            "postgresql://db/x?password=***&sslmode=off",
            ["correct horse", "correct"],
        ),
        (
            "postgresql://db/x?sslpassword=a b&password=c%20d",
            "postgresql://db/x?sslpassword=***&password=***",
            ["a b", "c%20d", "c d", "a"],
        ),
        ("postgresql://db/x?password=hun#ter22", "postgresql://db/x?password=***", ["hun#ter22", "hun"]),
        ("postgresql://db/x?password=cor+rect", "postgresql://db/x?password=***", ["cor+rect", "cor rect"]),
        ("postgresql://me:correct horse@db/x\n", "postgresql://me:***@db/x\n", ["correct horse"]),
        (" postgresql://db/x?password=correct horse\n", " postgresql://db/x?password=***\n", ["correct horse", "correct"]),
        ("postgresql://me:cor/rect horse@db/x", "postgresql://me:***@db/x", ["cor/rect horse"]),
        ("postgresql://a b:correct@db/x", "postgresql://a b:***@db/x", ["correct"]),
        ("postgresql://me:pw@db/x?user=a@b", "postgresql://me:***@b", ["pw@db/x?user=a", "pw"]),
        ("see https://db/x?password=hidden for more", "see https://db/x?password=*** for more", ["hidden"]),
        ("https://host:8080 is down, mail admin@example.org", "https://host:8080 is down, mail admin@example.org", []),
        ("https://host:8080/path", "https://host:8080/path", []),
        *(
            (text, text, [])
            for text in (
                "postgresql://db:5432/app is slow: tell ops@example.org",
                "postgresql://db:5432?x=y is slow: tell ops@example.org",
                "postgresql://db:5432\ntell ops@example.org",
                "postgresql://db:5432",
                "postgresql://db is slow\ntell him: ops@example.org",
                "postgresql://db:is\nslow, tell ops@example.org",
            )
        ),
    ],
)
def test_a_password_is_found_and_taken_out_and_a_port_is_none(text: str, shown: str, passwords: list[str]) -> None:
    assert without_passwords(text) == shown
    assert passwords_in(text) == passwords


@pytest.mark.parametrize("text", ["x://:" * 100_000, "@" + "x://:" * 100_000, "postgresql://" * 40_000, "a://b:c@d," * 50_000])
def test_a_long_text_takes_no_longer_than_reading_it(text: str) -> None:
    """Somebody's job may hold a page of links without a blank in it."""
    began = time.process_time()
    passwords_in(text)
    without_passwords(text)
    assert time.process_time() - began < 5


@pytest.mark.parametrize("password", ["cor/rect horse", "12/34 56", "12 34", "12?3 4", " 1 2", "5432"])
def test_a_setting_that_begins_with_a_stores_address_is_one_whatever_its_password_looks_like(password: str) -> None:
    """SQLAlchemy reads it so, and connects with it."""
    url = f"postgresql://me:{password}@db:5432/x"
    assert without_passwords(url, setting=True) == "postgresql://me:***@db:5432/x"
    assert password in passwords_in(url, setting=True)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://me@db/x", "must begin with"),
        ("postgresql://me:pw@db/x\n", "a line end or a blank"),
        (" postgresql://me:pw@db/x", "a line end or a blank"),
        ("postgresql://me:pw\npw@db/x", "a line end or a blank"),
        ("sqlite:///db/lily.sqlite3\n", "a line end or a blank"),
        ("sqlite://", "must begin with"),
        ("/var/lib/lily.sqlite3", "must begin with"),
        ("postgresql://me:p@ss@db/x", "more than one @"),
        ("postgresql://me:pw@db:banana/x", "can't be read"),
        ("postgresql://db:99999/x", "can't be read"),
        ("postgresql://[::1]:0/x", "can't be read"),
        ("postgresql://db:/x", "can't be read"),
        ("postgresql://one:5432,two:5432/x", "can't be read"),
    ],
)
def test_a_store_address_that_no_store_can_have_is_named_without_anything_of_it(url: str, said: str) -> None:
    wrong = wrong_store(url)
    assert wrong is not None
    assert said in wrong[0]
    assert "pw" not in "".join(wrong)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "sqlite:///db/other.sqlite3",
        "postgres://db/x",
        "postgresql:///x?host=/run/postgresql",
        "postgresql+psycopg://me@db:5432/x",
        "postgresql://me:a/b:c?d@db:5432/x",
        "postgresql://[::1]:5432/x",
        "postgresql://[::1]/x",
    ],
)
def test_a_store_address_that_some_store_can_have_is_let_through(url: str) -> None:
    assert wrong_store(url) is None
