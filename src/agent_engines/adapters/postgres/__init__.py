"""The ledger on PostgreSQL 14 or newer: asyncpg, SQL in named queries, migrations by alembic."""
