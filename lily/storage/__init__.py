"""What is kept: the store (SQLite or PostgreSQL) and the artifacts (files)."""
