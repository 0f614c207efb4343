"""Finding a secret in files, by means of its own: the encoders of the standard library, and nothing of what takes secrets out."""

import base64
import json
from html import escape
from pathlib import Path
from urllib.parse import quote, quote_plus


def traces(secret: str) -> dict[str, bytes]:
    """What stands in a file that has the secret in one of its forms."""
    plain = secret.encode()
    units = [plain.hex()[at : at + 2] for at in range(0, 2 * len(plain), 2)]
    found = {
        "plain": plain,
        "url": quote(secret, safe="").encode(),
        "form": quote_plus(secret).encode(),
        "every byte for a url": "".join(f"%{unit}" for unit in units).encode(),
        "json": json.dumps(secret)[1:-1].encode(),
        "json in json": json.dumps(json.dumps(secret)[1:-1])[1:-1].encode(),
        "hex": plain.hex().encode(),
        "HEX": plain.hex().upper().encode(),
        "html": escape(secret).encode(),
        "repr": repr(secret)[1:-1].encode(),
        "utf-16": secret.encode("utf-16-le"),
    }
    for shift in range(3):
        digits = base64.b64encode(b"\0" * shift + plain)[(0, 2, 3)[shift] : 8 * (shift + len(plain)) // 6]
        found[f"base64 after {shift}"] = digits
        found[f"base64 for urls after {shift}"] = digits.replace(b"+", b"-").replace(b"/", b"_")
    return found


def leaks(root: Path, secret: str, *, but: frozenset[str] = frozenset()) -> list[str]:
    """The files under `root`, database and its log included, with a trace of the secret in their bytes or their names."""
    wanted = traces(secret)
    found = []
    for path in root.rglob("*"):
        if path.is_symlink() or not path.is_file() or path.name in but:
            continue
        data = bytes(path.relative_to(root)) + b"\n" + path.read_bytes()
        found += [f"{path.relative_to(root)}: {name}" for name, form in wanted.items() if form in data]
    return found
