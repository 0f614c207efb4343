"""A person's consent: what it is asked for, what it is bound to, and the channels it comes through."""
