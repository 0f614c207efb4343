"""Other job runners beside Lily, each in a virtual environment of its own: `python -m benchmarks.peers.run`."""
