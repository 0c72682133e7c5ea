"""Terms of tasks: feedback on finished work, tenants, budgets and what was spent."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

UP = """
CREATE TABLE task_feedback (
    task_id     text COLLATE "C" NOT NULL,
    generation  integer NOT NULL,
    source      text COLLATE "C" NOT NULL,
    attempt     integer NOT NULL,
    task_type   text NOT NULL,
    agent       text COLLATE "C",
    status      text NOT NULL,
    quality     double precision NOT NULL CHECK (quality >= 0 AND quality <= 1),
    comment     text NOT NULL DEFAULT '',
    created_at  timestamptz NOT NULL,
    recorded_at timestamptz,
    PRIMARY KEY (task_id, generation, source)
);
COMMENT ON TABLE task_feedback IS 'What others say about the work of one end of a task (its generation)';
COMMENT ON COLUMN task_feedback.recorded_at IS 'When the routers were told to learn from it; NULL: still to be told';
CREATE INDEX task_feedback_untold ON task_feedback (created_at, task_id) WHERE recorded_at IS NULL;

ALTER TABLE tasks ADD COLUMN terms jsonb;
COMMENT ON COLUMN tasks.terms IS 'Tenant, budget and affinity where the submitter named one; NULL: none of them';
ALTER TABLE attempts ADD COLUMN cost double precision, ADD COLUMN tokens bigint;
ALTER TABLE task_results ADD COLUMN tokens bigint;

CREATE TABLE tenants (
    name           text COLLATE "C" PRIMARY KEY,
    cost           double precision,
    tokens         bigint,
    period_seconds double precision NOT NULL,
    weight         double precision NOT NULL,
    updated_at     timestamptz NOT NULL
);
COMMENT ON TABLE tenants IS 'Tenants with limits: what each may spend in a period, and its share of busy agents';

CREATE TABLE tenant_spending (
    tenant text COLLATE "C" NOT NULL,
    hour   timestamptz NOT NULL,
    cost   double precision NOT NULL,
    tokens bigint NOT NULL,
    PRIMARY KEY (tenant, hour)
) WITH (fillfactor = 70);
COMMENT ON TABLE tenant_spending IS 'What attempts used up, added in the transaction that keeps their reports';
"""

DOWN = """
DROP TABLE task_feedback, tenants, tenant_spending;
ALTER TABLE tasks DROP COLUMN terms;
ALTER TABLE attempts DROP COLUMN cost, DROP COLUMN tokens;
ALTER TABLE task_results DROP COLUMN tokens;
"""


def upgrade() -> None:
    op.execute(UP)


def downgrade() -> None:
    op.execute(DOWN)
