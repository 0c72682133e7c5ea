"""What this machine takes: our own cost, and the same work through our peers. Run from the repository's root."""
