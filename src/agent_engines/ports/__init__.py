"""Floor 2: what we need from outside, in our words. Adapters implement these; behaviour suites define them."""
