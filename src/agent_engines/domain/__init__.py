"""Floor 1: nouns and rules. No clock, no I/O, no chance of its own: time and randomness are arguments."""
