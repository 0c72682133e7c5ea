"""What a preflight judges: rules over what was read from the servers and from our own environment. No I/O."""
