"""Routing that learns: what a task looks like kept with its decision, and what was learned kept for a restart."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# Only additions: an older router goes on writing rows without them while the newer ones start.
UP = """
ALTER TABLE tasks ADD COLUMN hints json;
COMMENT ON COLUMN tasks.hints IS 'What the submitter said about the choice: strategy, features, embedding; NULL: nothing';

ALTER TABLE decision_history
    ADD COLUMN features real[],
    ADD COLUMN embedding real[],
    ADD COLUMN state_sequence bigint;
COMMENT ON COLUMN decision_history.features IS 'What the submitter said the task looks like, so that policies can be trained on history';
COMMENT ON COLUMN decision_history.state_sequence IS 'The last lesson the choice was made with; with policy_version it makes the choice repeatable';

CREATE TABLE learned_snapshots (
    name       text COLLATE "C" NOT NULL,
    sequence   bigint NOT NULL,
    digest     text NOT NULL,
    state      bytea NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (name, sequence)
);
COMMENT ON TABLE learned_snapshots IS 'What the routers had learned up to a lesson: start-up is the newest one and the lessons after it';
"""

DOWN = """
DROP TABLE learned_snapshots;
ALTER TABLE decision_history DROP COLUMN state_sequence, DROP COLUMN embedding, DROP COLUMN features;
ALTER TABLE tasks DROP COLUMN hints;
"""


def upgrade() -> None:
    op.execute(UP)


def downgrade() -> None:
    op.execute(DOWN)
