"""Legs: a hedged task has two dispatches whose word counts."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# One nullable column without a default: added in an instant, and unknown to older routers, which go on as before.
UP = """
ALTER TABLE tasks ADD COLUMN legs jsonb;
COMMENT ON COLUMN tasks.legs IS
    'Of a hedged task: the generations whose failure counts, each with its agent; NULL: the newest one alone';
"""

DOWN = """
ALTER TABLE tasks DROP COLUMN legs;
"""


def upgrade() -> None:
    op.execute(UP)


def downgrade() -> None:
    op.execute(DOWN)
