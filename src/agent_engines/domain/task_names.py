"""Task names: the id a task gets from its idempotency key, the same on every router."""

from __future__ import annotations

import uuid

from .digests import sha1
from .kernel import moment_of, name_of
from .terms import DEFAULT_TENANT

TASK_NAMESPACE = uuid.UUID("6f2b8f0e-5c51-5d0c-9c0e-3d6e4d1f7a10")
"""Namespace of task ids made from idempotency keys: the same key is the same task on every router."""
_IN_NAMESPACE = sha1(TASK_NAMESPACE.bytes, usedforsecurity=False)

__all__ = ["TASK_NAMESPACE", "moment_of", "task_id_of"]


def task_id_of(key: str, tenant: str = DEFAULT_TENANT) -> str:
    """The id of the task with this idempotency key, on the account of this tenant: what others call alike is another task.

    Its version 5 UUID (RFC 9562, 5.5). A key that is a version 7 UUID lends its moment: ids in the order of time cost
    the database a sixth less with 80,000 rows, and no more when an index has outgrown its memory. The rest is a digest
    all the same, as ids are shown to everybody and keys are not.
    """
    # A key has no NUL, so no two pairs are written alike.
    named = key if tenant == DEFAULT_TENANT else f"{tenant}\0{key}"
    digest = _IN_NAMESPACE.copy()
    digest.update(named.encode())
    return name_of(digest.digest(), key)
