"""HTTP: the edge between callers and the service. Bytes in, bytes out, msgspec in between, no web framework (ADR)."""
