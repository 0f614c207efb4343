"""The servers that peers need, given back at the end: two empty databases of Redis, a Redis that syncs, a database in PostgreSQL."""

import os
import shutil
import socket
import subprocess
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

REDIS = os.environ.get("LILY_PEERS_REDIS") or "redis://127.0.0.1:6379"
POSTGRES = os.environ.get("LILY_PEERS_POSTGRES") or "postgresql://postgres@127.0.0.1:5432/postgres"
SECONDS = 10.0
SETTINGS = ("appendonly", "appendfsync", "save")


@dataclass
class Services:
    """Environment variables by what needs them, why something is not there, and settings to print."""

    environment: dict[str, dict[str, str]] = field(default_factory=lambda: {"sqlite": {}})
    missing: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)


class Redis:
    """Just enough of its protocol: this side's interpreter has no client."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.base = f"redis://{parts.netloc}"
        self.socket = socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 6379), timeout=SECONDS)
        self.file = self.socket.makefile("rb")
        if parts.password:
            self.ask("AUTH", *filter(None, (parts.username, parts.password)))

    def close(self) -> None:
        """Hang up."""
        self.file.close()
        self.socket.close()

    def ask(self, *words: str) -> str | list[str]:
        """One command and its answer. Raises OSError when the server refuses."""
        parts = [f"${len(word.encode())}\r\n{word}\r\n" for word in words]
        self.socket.sendall(f"*{len(words)}\r\n{''.join(parts)}".encode())
        return self._answer()

    def _answer(self) -> str | list[str]:
        line = self.file.readline().decode().rstrip("\r\n")
        kind, rest = line[:1], line[1:]
        if kind == "*":
            return [str(self._answer()) for _ in range(int(rest))]
        if kind == "$":
            return self.file.read(int(rest) + 2)[:-2].decode()
        if kind in {"-", ""}:
            raise OSError(rest or "the server closed the connection")
        return rest

    def empty_databases(self, count: int) -> list[int]:
        """Numbers of so many databases without a key, from the end. Raises OSError when there are too few."""
        found = []
        for number in reversed(range(int(self.ask("CONFIG", "GET", "databases")[1]))):
            self.ask("SELECT", str(number))
            if self.ask("DBSIZE") == "0":
                found.append(number)
            if len(found) == count:
                return found
        raise OSError(f"fewer than {count} empty databases")

    def settings(self) -> str:
        """Its version, and what decides over durability."""
        info = str(self.ask("INFO", "server"))
        version = next(line.partition(":")[2] for line in info.splitlines() if line.startswith("redis_version"))
        said = [f"{name} {self.ask('CONFIG', 'GET', name)[1] or '(none)'}" for name in SETTINGS]
        return f"Redis {version}: {', '.join(said)}"

    def places(self) -> dict[str, str]:
        """Two empty databases, as peers are told them."""
        first, second = self.empty_databases(2)
        return {"PEER_REDIS": f"{self.base}/{first}", "PEER_RESULTS": f"{self.base}/{second}"}

    def flush(self, places: dict[str, str]) -> None:
        """Empty these databases, which were empty before."""
        for url in places.values():
            self.ask("SELECT", url.rpartition("/")[2])
            self.ask("FLUSHDB")


def start(root: Path, stack: ExitStack) -> Services:
    """Whatever is there; what is taken is given back when `stack` closes."""
    services = Services()
    for kind, take in (("redis", shared_redis), ("durable-redis", _own_redis), ("postgres", _postgres)):
        try:
            services.environment[kind], services.settings[kind] = take(root, stack)
        except Exception as exc:  # whatever its driver raises: it is told where the figure would be
            services.missing[kind] = " ".join(f"{kind} can't be used here: {exc}".split())[:200]
    return services


def shared_redis(root: Path, stack: ExitStack) -> tuple[dict[str, str], str]:
    """Two databases of the machine's own server, which keeps the settings that it has."""
    server = Redis(REDIS)
    stack.callback(server.close)
    places = server.places()
    stack.callback(server.flush, places)
    return places, server.settings()


def _own_redis(root: Path, stack: ExitStack) -> tuple[dict[str, str], str]:
    """A server that syncs each write before it answers, on a free port of loopback."""
    program = shutil.which("redis-server")
    if program is None:
        raise OSError("redis-server is not on PATH")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = root / "redis"
    home.mkdir()
    said = ["--bind", "127.0.0.1", "--port", str(port), "--dir", str(home), "--appendonly", "yes", "--appendfsync", "always", "--save", ""]
    process = subprocess.Popen([program, *said], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    stack.callback(process.wait)
    stack.callback(process.terminate)
    deadline = time.perf_counter() + SECONDS
    while True:
        try:
            with closing(Redis(f"redis://127.0.0.1:{port}")) as server:
                return server.places(), server.settings()
        except OSError:
            if process.poll() is not None or time.perf_counter() > deadline:
                raise
            time.sleep(0.02)


def _postgres(root: Path, stack: ExitStack) -> tuple[dict[str, str], str]:
    """A database of our own."""
    import psycopg
    from psycopg.sql import SQL, Identifier

    name = f"lily_peers_{os.getpid()}"
    server = psycopg.connect(POSTGRES, autocommit=True)
    stack.callback(server.close)
    server.execute(SQL("create database {}").format(Identifier(name)))
    stack.callback(server.execute, SQL("drop database {} with (force)").format(Identifier(name)))
    asked = [
        (setting, server.execute(SQL("show {}").format(Identifier(setting))).fetchone()) for setting in ("fsync", "synchronous_commit")
    ]
    said = [f"{setting} {row[0]}" for setting, row in asked if row]
    version = str(server.info.server_version // 10000) + "." + str(server.info.server_version % 10000)
    return {"PEER_POSTGRES": urlsplit(POSTGRES)._replace(path=f"/{name}").geturl()}, f"PostgreSQL {version}: {', '.join(said)}"
