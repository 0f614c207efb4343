"""Telling people that a job keeps failing, and that it works again."""
