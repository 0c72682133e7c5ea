-- name: schedule_add
-- why: nothing comes back when the name is taken
INSERT INTO schedules (
    name, cron, timezone, template, payload, catch_up, enabled, next_run_at, created_at, updated_at
)
VALUES (
    $1, $2, $3, $4::text::jsonb, $5::text::json, $6, $7, to_timestamp($8), to_timestamp($9), to_timestamp($9)
)
ON CONFLICT (name) DO NOTHING
RETURNING name;

-- name: schedule_put
-- why: new times count from now on; otherwise an occurrence that is due must not be lost to an edit
INSERT INTO schedules (
    name, cron, timezone, template, payload, catch_up, enabled, next_run_at, created_at, updated_at
)
VALUES (
    $1, $2, $3, $4::text::jsonb, $5::text::json, $6, $7, to_timestamp($8), to_timestamp($9), to_timestamp($9)
)
ON CONFLICT (name) DO UPDATE
SET
    cron = EXCLUDED.cron, timezone = EXCLUDED.timezone, template = EXCLUDED.template, payload = EXCLUDED.payload,
    catch_up = EXCLUDED.catch_up, enabled = EXCLUDED.enabled, updated_at = EXCLUDED.updated_at, last_error = NULL,
    next_run_at = CASE
        WHEN (schedules.cron, schedules.timezone) = (EXCLUDED.cron, EXCLUDED.timezone)
            AND schedules.enabled AND EXCLUDED.enabled THEN schedules.next_run_at
        ELSE EXCLUDED.next_run_at
    END
RETURNING
    name, cron, timezone, template, payload, catch_up, enabled, next_run_at, last_run_at, last_task_id, last_error,
    created_at, updated_at;

-- name: schedule
-- why: one of them
SELECT
    name, cron, timezone, template, payload, catch_up, enabled, next_run_at, last_run_at, last_task_id, last_error,
    created_at, updated_at
FROM schedules
WHERE name = $1;

-- name: schedules
-- why: a page by name
SELECT
    name, cron, timezone, template, payload, catch_up, enabled, next_run_at, last_run_at, last_task_id, last_error,
    created_at, updated_at
FROM schedules
WHERE name > $1
ORDER BY name
LIMIT $2;

-- name: schedule_remove
-- why: tasks it has made stay
DELETE FROM schedules WHERE name = $1 RETURNING name;

-- name: schedule_enable
-- why: what passed while it was paused is not made up for; one that is enabled already keeps its time
UPDATE schedules
SET
    next_run_at = CASE WHEN enabled THEN next_run_at ELSE to_timestamp($2) END,
    enabled = true, updated_at = to_timestamp($3)
WHERE name = $1
RETURNING
    name, cron, timezone, template, payload, catch_up, enabled, next_run_at, last_run_at, last_task_id, last_error,
    created_at, updated_at;

-- name: schedule_pause
-- why: without a next time nobody claims it
UPDATE schedules
SET enabled = false, next_run_at = NULL, claimed_until = NULL, updated_at = to_timestamp($2)
WHERE name = $1
RETURNING
    name, cron, timezone, template, payload, catch_up, enabled, next_run_at, last_run_at, last_task_id, last_error,
    created_at, updated_at;

-- name: schedule_earliest
-- why: how long routers may sleep
SELECT min(GREATEST(next_run_at, claimed_until)) AS earliest FROM schedules WHERE next_run_at IS NOT NULL;

-- name: schedule_claim
-- why: one router makes the task; when it dies over it, another one may after $2
WITH due AS (
    SELECT name
    FROM schedules
    WHERE next_run_at <= to_timestamp($1) AND (claimed_until IS NULL OR claimed_until <= to_timestamp($1))
    ORDER BY next_run_at
    LIMIT $3
    FOR UPDATE SKIP LOCKED
)
UPDATE schedules s
SET claimed_until = to_timestamp($2)
FROM due
WHERE s.name = due.name
RETURNING
    s.name, s.cron, s.timezone, s.template, s.payload, s.catch_up, s.enabled, s.next_run_at, s.last_run_at,
    s.last_task_id, s.last_error, s.created_at, s.updated_at;

-- name: schedule_advance
-- why: what was done is noted; the time goes on unless somebody changed it meanwhile
UPDATE schedules
SET
    last_run_at = to_timestamp($3), last_task_id = $4, last_error = $5,
    next_run_at = CASE WHEN next_run_at = to_timestamp($2) THEN to_timestamp($6) ELSE next_run_at END,
    claimed_until = CASE WHEN next_run_at = to_timestamp($2) THEN NULL ELSE claimed_until END
WHERE name = $1;

-- name: schedule_postpone
-- why: a task that cannot be made now is tried again, not every moment
UPDATE schedules SET claimed_until = to_timestamp($2), last_error = $3 WHERE name = $1;

-- name: schedule_ran
-- why: a run by hand, beside the times
UPDATE schedules SET last_run_at = to_timestamp($2), last_task_id = $3 WHERE name = $1;
