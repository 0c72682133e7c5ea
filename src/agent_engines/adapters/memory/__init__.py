"""In-memory adapters: the honest test bed, held to the same behaviour suites as the real servers."""
