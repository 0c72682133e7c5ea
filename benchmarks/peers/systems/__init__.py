"""One module for each system, with a class `System` (peer.py). A file in ../requirements of the same name makes its
environment; a system without one runs in ours. Only a system's own module imports its packages.
"""
