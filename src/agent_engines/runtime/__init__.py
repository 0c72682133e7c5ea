"""Floor 3: a task's life, in order. Each service starts, may be stopped twice, and leaves nothing running."""
