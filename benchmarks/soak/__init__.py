"""An hour under mixed load: every promise checked, and everything that a supervisor uses held against what it may grow by."""
