"""Copy the packaged samples over this repository's own `.lily` and `samples`, after a change to lily/samples."""

from pathlib import Path

from lily.samples import sample_files


def main() -> None:
    """Write each file; what was added by hand beside them stays."""
    root = Path(__file__).resolve().parents[1]
    for name, body in sample_files():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)


if __name__ == "__main__":
    main()
