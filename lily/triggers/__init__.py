"""When jobs run: the windows that a trigger defines, and the APScheduler triggers that fire at them.

`lily.triggers.schedule` is the door; nothing is imported here, so that a command that needs no calendar pays for none.
"""
