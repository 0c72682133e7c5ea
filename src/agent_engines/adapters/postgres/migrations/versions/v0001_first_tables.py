"""The first tables: agents, tasks, decisions, results, attempts, dead letters."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Task and request identifiers are text in the C collation: they come from the bus as strings, so a malformed one must
# be "not found" or stored as it is, never an error that fails a batch of 500; comparing them is a memcmp, and version 7
# identifiers stay in the order of time.
UP = """
CREATE TABLE agents (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name         text COLLATE "C" NOT NULL UNIQUE,
    agent_type   text NOT NULL DEFAULT 'custom',
    status       text NOT NULL DEFAULT 'healthy',
    capabilities jsonb NOT NULL DEFAULT '[]',
    metadata     jsonb NOT NULL DEFAULT '{}',
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    last_seen    timestamptz
) WITH (fillfactor = 70);

CREATE TABLE tasks (
    task_id             text COLLATE "C" PRIMARY KEY,
    request_id          text COLLATE "C" NOT NULL,
    task_type           text NOT NULL,
    payload             json NOT NULL,
    requirements        jsonb NOT NULL,
    metadata            jsonb NOT NULL,
    priority            smallint NOT NULL,
    timeout_seconds     double precision,
    deadline            timestamptz,
    idempotency_key     text,
    body_hash           bytea NOT NULL,
    max_attempts        integer,
    submitted_at        timestamptz NOT NULL,
    origin              text NOT NULL,
    traceparent         text,
    status              text NOT NULL,
    generation          integer NOT NULL,
    attempt             integer NOT NULL,
    selected_agent      text COLLATE "C",
    next_run_at         timestamptz,
    started_at          timestamptz,
    cancel_requested_at timestamptz,
    updated_at          timestamptz NOT NULL
);
COMMENT ON COLUMN tasks.payload IS 'The caller''s own bytes: json keeps them as they came, jsonb would not';
COMMENT ON COLUMN tasks.status IS 'A hint kept in step; a row in task_results is what ends a task';
CREATE INDEX tasks_by_time ON tasks (submitted_at, task_id);
CREATE INDEX tasks_retrying ON tasks (next_run_at) WHERE status = 'retrying';
CREATE INDEX tasks_open ON tasks (updated_at) WHERE status IN ('queued', 'running', 'retrying');
CREATE INDEX tasks_unhappy ON tasks (status, submitted_at, task_id)
    WHERE status IN ('failed', 'dead_letter', 'cancelled', 'expired');

CREATE TABLE decision_history (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    request_id     text COLLATE "C" NOT NULL UNIQUE,
    task_id        text COLLATE "C",
    generation     integer,
    task_type      text NOT NULL,
    selected_agent text COLLATE "C" NOT NULL,
    confidence     double precision NOT NULL,
    propensity     double precision NOT NULL,
    strategy       text NOT NULL,
    policy_version text NOT NULL,
    explored       boolean NOT NULL,
    reasoning      text NOT NULL,
    context_data   jsonb,
    system_state   jsonb NOT NULL,
    created_at     timestamptz NOT NULL
) WITH (toast_tuple_target = 8160);
COMMENT ON COLUMN decision_history.system_state IS
    'What the choice was made from: candidates as columns (one array for each number, aligned with "agent"), and rejected';
CREATE INDEX idx_decision_history_task_type ON decision_history (task_type, created_at DESC);
CREATE INDEX decision_history_by_time ON decision_history (created_at, id);

CREATE TABLE task_results (
    task_id           text COLLATE "C" PRIMARY KEY,
    agent_id          text COLLATE "C" REFERENCES agents (name),
    status            text NOT NULL CHECK (status IN ('success', 'failed', 'dead_letter', 'cancelled', 'expired')),
    result            jsonb,
    error             text,
    error_type        text,
    retryable         boolean,
    execution_time_ms double precision,
    quality           double precision,
    cost              double precision,
    request_id        text COLLATE "C" NOT NULL,
    task_type         text NOT NULL,
    priority          smallint NOT NULL,
    replica           text NOT NULL,
    generation        integer NOT NULL,
    attempt           integer NOT NULL,
    delivery          integer NOT NULL,
    submitted_at      timestamptz NOT NULL,
    started_at        timestamptz,
    completed_at      timestamptz,
    created_at        timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX idx_task_results_agent_time ON task_results (agent_id, created_at DESC);
CREATE INDEX task_results_by_time ON task_results USING brin (created_at);

CREATE FUNCTION refuse_change_of_outcome() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING
        ERRCODE = 'restrict_violation',
        MESSAGE = 'the outcome of task ' || OLD.task_id || ' is final',
        HINT = 'Rows of task_results are never updated; retention and reopening delete them.';
END
$$;
CREATE TRIGGER task_results_are_final BEFORE UPDATE ON task_results
    FOR EACH ROW EXECUTE FUNCTION refuse_change_of_outcome();

CREATE TABLE attempts (
    task_id       text COLLATE "C" NOT NULL,
    generation    integer NOT NULL,
    attempt       integer NOT NULL,
    delivery      integer NOT NULL,
    agent         text COLLATE "C" NOT NULL,
    replica       text NOT NULL,
    status        text NOT NULL,
    error         text,
    error_type    text,
    started_at    timestamptz,
    completed_at  timestamptz,
    retry_at      timestamptz,
    created_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (task_id, generation, attempt, delivery)
);
COMMENT ON TABLE attempts IS 'Attempts that run, or that did not end their task';

CREATE TABLE dead_letters (
    task_id     text COLLATE "C" PRIMARY KEY,
    task_type   text NOT NULL,
    agent       text COLLATE "C",
    reason      text NOT NULL,
    attempts    integer NOT NULL,
    error       jsonb,
    history     jsonb NOT NULL DEFAULT '[]',
    created_at  timestamptz NOT NULL,
    redriven_at timestamptz
);
COMMENT ON COLUMN dead_letters.history IS 'Earlier terminal rows of this task, oldest first';
CREATE INDEX dead_letters_by_time ON dead_letters (created_at, task_id);
"""

DOWN = """
DROP TABLE dead_letters, attempts, task_results, decision_history, tasks, agents;
DROP FUNCTION refuse_change_of_outcome();
"""


def upgrade() -> None:
    op.execute(UP)


def downgrade() -> None:
    op.execute(DOWN)
