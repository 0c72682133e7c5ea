"""Celery with the pool its makers advise for handlers that wait for something."""

from __future__ import annotations

from benchmarks.peers.peer import SLOTS

from . import celery


class System(celery.System):
    label = "Celery + Redis, gevent"
    pool = ("--pool=gevent", f"--concurrency={SLOTS}")
    pool_words = f"gevent pool of {SLOTS}"
