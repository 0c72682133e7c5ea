"""Floor 7: the only place where things are joined. One module for each kind of process, so that a process loads only what it uses."""
