"""Our system against its peers: same machine, same servers, same work, one after the other."""
