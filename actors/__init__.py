"""The concurrency of Lily: supervised actors that talk over memory channels."""
