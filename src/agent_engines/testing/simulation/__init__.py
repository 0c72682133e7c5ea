"""Deterministic simulation: the real runtime over a model of the servers, in virtual time, from one seed."""
