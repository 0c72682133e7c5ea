"""Arrays: how a connection writes and reads them, by the kernel where it was compiled, otherwise asyncpg's own way.

asyncpg asks an abstract class of each element, twice of a text, whether it is an array itself: most of what the arguments of a
batch cost. Ours have one dimension, so nobody need ask. An array in an array is refused (asyncpg.DataError), like every element
that is not of the array's type; arrays of more dimensions are read as always.
"""

from __future__ import annotations

from asyncpg.pool import PoolConnectionProxy

try:
    from . import _kernel as compiled
except ImportError:
    compiled = None

VERSION = 1
"""Goes up with every change of a function there: a kernel that was compiled from another one is not used."""
COMPILED = compiled is not None and compiled.VERSION == VERSION
"""Whether the compiled functions are used."""


def teach(connection: PoolConnectionProxy) -> None:
    """To be called before the connection has prepared any statement.

    asyncpg's `set_type_codec` refuses array types, as it has a way of its own for them; what it calls does not.
    """
    if compiled is None or not COMPILED:
        return
    # Object ids of array types are the same in every PostgreSQL.
    codecs = (
        (1009, "text", compiled.texts),
        (1007, "int4", compiled.int4s),
        (1016, "int8", compiled.int8s),
        (1022, "float8", compiled.float8s),
        (1000, "bool", compiled.bools),
        (1001, "bytea", compiled.byteas),
    )
    settings = connection._protocol.get_settings()
    for oid, element, encode in codecs:
        settings.add_python_codec(oid, f"{element}[]", "pg_catalog", [], "scalar", encode, compiled.read, "binary")
