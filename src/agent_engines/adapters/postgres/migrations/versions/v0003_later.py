"""Work for later: tasks with a time of their own, schedules that make tasks, redrives of many dead letters."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# A planned task is queued with next_run_at; every other queued task has none, so the index holds the planned ones alone.
UP = """
ALTER TABLE tasks ADD COLUMN run_at timestamptz;
COMMENT ON COLUMN tasks.run_at IS 'Not before this moment, when the submitter said so; next_run_at is what is still waited for';
CREATE INDEX IF NOT EXISTS tasks_planned ON tasks (next_run_at) WHERE status = 'queued' AND next_run_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS dead_letters_waiting ON dead_letters (created_at, task_id) WHERE redriven_at IS NULL;

CREATE TABLE schedules (
    name          text COLLATE "C" PRIMARY KEY,
    cron          text NOT NULL,
    timezone      text NOT NULL,
    template      jsonb NOT NULL,
    payload       json NOT NULL,
    catch_up      text NOT NULL,
    enabled       boolean NOT NULL,
    next_run_at   timestamptz,
    claimed_until timestamptz,
    last_run_at   timestamptz,
    last_task_id  text,
    last_error    text,
    created_at    timestamptz NOT NULL,
    updated_at    timestamptz NOT NULL
);
COMMENT ON COLUMN schedules.template IS 'What every task it makes asks for, but for the payload, which stays the caller''s own bytes';
COMMENT ON COLUMN schedules.next_run_at IS 'The next occurrence that no task was made for; NULL while it is paused or has none';
CREATE INDEX schedules_due ON schedules (next_run_at) WHERE next_run_at IS NOT NULL;

CREATE TABLE redrives (
    id            text PRIMARY KEY,
    orders        jsonb NOT NULL,
    state         text NOT NULL,
    matched       bigint NOT NULL,
    redriven      bigint NOT NULL,
    skipped       bigint NOT NULL,
    claimed_by    text,
    claimed_until timestamptz,
    last_error    text,
    started_at    timestamptz NOT NULL,
    updated_at    timestamptz NOT NULL
);
CREATE UNIQUE INDEX redrives_running ON redrives (state) WHERE state = 'running';
CREATE INDEX redrives_by_time ON redrives (started_at);
"""

DOWN = """
DROP TABLE redrives, schedules;
DROP INDEX dead_letters_waiting;
DROP INDEX tasks_planned;
ALTER TABLE tasks DROP COLUMN run_at;
"""


def upgrade() -> None:
    op.execute(UP)


def downgrade() -> None:
    op.execute(DOWN)
