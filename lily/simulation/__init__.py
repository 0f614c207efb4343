"""What a simulation is made of: its plan, a ledger in memory, slots that run nothing, and the report. The engine itself is the real one."""
