"""Measuring a running system as its callers see it: bounded load, every refusal counted, nothing claimed that was not read.

`engines bench` is made of these.
"""
