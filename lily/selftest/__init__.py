"""Lily's promises, put to the test on the machine that it runs on: what `lily selftest` does."""
