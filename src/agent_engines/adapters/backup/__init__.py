"""Backups of the ledger: a consistent dump with a manifest in one directory, and the way back."""
