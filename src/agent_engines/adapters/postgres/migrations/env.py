"""Alembic's entry: scripts are rendered as SQL (`alembic upgrade --sql` shows them), `migrate.py` runs them."""

from __future__ import annotations

from alembic import context

if not context.is_offline_mode():
    raise RuntimeError("these migrations are run by 'engines db migrate'; alembic itself only prints them (--sql)")

# One transaction around everything, the lock included, is opened by migrate.py.
context.configure(dialect_name="postgresql", transactional_ddl=False, literal_binds=True)
context.run_migrations()
