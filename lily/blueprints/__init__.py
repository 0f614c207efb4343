"""Blueprints: code-defined work that a job binds to a trigger."""
