"""Conditional triggers: what can be looked at, what is compared with what, and what came of a look."""
