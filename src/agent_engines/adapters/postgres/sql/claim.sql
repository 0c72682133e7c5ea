-- name: claim_due
-- why: each due retry goes to one claimer, as the next generation and attempt; one whose cancellation is wanted ends here
WITH due AS (
    SELECT t.task_id
    FROM tasks t
    WHERE t.status = 'retrying' AND t.next_run_at <= to_timestamp($1)
    ORDER BY t.next_run_at
    LIMIT $2
    FOR UPDATE SKIP LOCKED
),
ended AS (
    INSERT INTO task_results (
        task_id, status, request_id, task_type, priority, replica, generation, attempt, delivery, submitted_at,
        started_at, completed_at
    )
    SELECT
        t.task_id, 'cancelled', t.request_id, t.task_type, t.priority, '', t.generation, t.attempt, 1, t.submitted_at,
        t.started_at, to_timestamp($1)
    FROM tasks t
    JOIN due ON due.task_id = t.task_id
    WHERE t.cancel_requested_at IS NOT NULL
    ON CONFLICT (task_id) DO NOTHING
    RETURNING task_id
),
moved AS (
    UPDATE tasks t
    SET
        status = COALESCE(o.status, CASE WHEN t.cancel_requested_at IS NULL THEN 'queued' ELSE 'cancelled' END),
        generation = t.generation + CASE WHEN o.status IS NULL AND t.cancel_requested_at IS NULL THEN 1 ELSE 0 END,
        attempt = t.attempt + CASE WHEN o.status IS NULL AND t.cancel_requested_at IS NULL THEN 1 ELSE 0 END,
        legs = NULL,
        next_run_at = NULL,
        updated_at = to_timestamp($1)
    FROM due
    LEFT JOIN task_results o ON o.task_id = due.task_id
    WHERE t.task_id = due.task_id
    RETURNING
        t.task_id, t.request_id, t.task_type, t.payload, t.requirements, t.metadata, t.priority, t.timeout_seconds,
        t.deadline, t.idempotency_key, t.body_hash, t.max_attempts, t.submitted_at, t.origin, t.traceparent, t.hints, t.terms,
        t.status, t.generation, t.attempt, t.selected_agent
)
SELECT
    task_id, request_id, task_type, payload, requirements, metadata, priority, timeout_seconds, deadline,
    idempotency_key, body_hash, max_attempts, submitted_at, origin, traceparent, hints, terms, status, generation, attempt,
    selected_agent
FROM moved
WHERE status = 'queued';

-- name: stranded_kinds
-- why: only what somebody may do now is taken, and that depends on type and requirements; a page after the kind $3, $4
SELECT t.task_type, t.requirements::text AS requirements
FROM tasks t
WHERE t.status IN ('queued', 'running')
    AND t.updated_at < to_timestamp($1)
    AND t.next_run_at IS NULL
    AND CASE
        WHEN $2::text[] IS NULL THEN t.status = 'queued' OR t.updated_at < to_timestamp($1 - COALESCE(t.timeout_seconds, 0))
        ELSE t.selected_agent = ANY ($2)
    END
    AND NOT EXISTS (SELECT FROM task_results r WHERE r.task_id = t.task_id)
    AND ($3::text IS NULL OR (t.task_type, t.requirements::text) > ($3, $4::text))
GROUP BY t.task_type, t.requirements
ORDER BY t.task_type, t.requirements::text
LIMIT $5;

-- name: claim_stranded
-- why: without news for too long, or its agent is gone: dispatched again as the next generation of the same attempt
-- A queued task with a time of its own waits for claim_planned.
-- A running task is given its own time limit on top, unless those agents are named who had it and are gone. Of other
-- kinds than those named only what has to be ended is taken. The database's clock says when it was claimed, since that
-- news must be newer than what any other claimer is looking for.
WITH kinds AS (
    SELECT k.task_type, k.requirements::jsonb AS requirements
    FROM unnest($4::text[], $5::text[]) AS k (task_type, requirements)
),
due AS (
    SELECT t.task_id
    FROM tasks t
    WHERE t.status IN ('queued', 'running')
        AND t.updated_at < to_timestamp($1)
        AND t.next_run_at IS NULL
        AND CASE
            WHEN $3::text[] IS NULL
                THEN t.status = 'queued' OR t.updated_at < to_timestamp($1 - COALESCE(t.timeout_seconds, 0))
            ELSE t.selected_agent = ANY ($3)
        END
        AND (
            $4::text[] IS NULL
            OR t.deadline <= GREATEST(now(), to_timestamp($1))
            OR t.cancel_requested_at IS NOT NULL
            OR EXISTS (SELECT FROM kinds k WHERE k.task_type = t.task_type AND k.requirements = t.requirements)
        )
        AND NOT EXISTS (SELECT FROM task_results r WHERE r.task_id = t.task_id)
    ORDER BY t.updated_at
    LIMIT $2
    FOR UPDATE SKIP LOCKED
),
ended AS (
    INSERT INTO task_results (
        task_id, status, request_id, task_type, priority, replica, generation, attempt, delivery, submitted_at,
        started_at, completed_at
    )
    SELECT
        t.task_id, 'cancelled', t.request_id, t.task_type, t.priority, '', t.generation, t.attempt,
        CASE WHEN t.status = 'queued' THEN 0 ELSE 1 END, t.submitted_at, t.started_at,
        GREATEST(now(), to_timestamp($1))
    FROM tasks t
    JOIN due ON due.task_id = t.task_id
    WHERE t.cancel_requested_at IS NOT NULL
    ON CONFLICT (task_id) DO NOTHING
    RETURNING task_id
),
moved AS (
    UPDATE tasks t
    SET
        status = CASE WHEN t.cancel_requested_at IS NULL THEN 'queued' ELSE 'cancelled' END,
        generation = t.generation + CASE WHEN t.cancel_requested_at IS NULL THEN 1 ELSE 0 END,
        legs = NULL,
        updated_at = GREATEST(now(), to_timestamp($1))
    FROM due
    WHERE t.task_id = due.task_id
    RETURNING
        t.task_id, t.request_id, t.task_type, t.payload, t.requirements, t.metadata, t.priority, t.timeout_seconds,
        t.deadline, t.idempotency_key, t.body_hash, t.max_attempts, t.submitted_at, t.origin, t.traceparent, t.hints, t.terms,
        t.status, t.generation, t.attempt, t.selected_agent
)
SELECT
    task_id, request_id, task_type, payload, requirements, metadata, priority, timeout_seconds, deadline,
    idempotency_key, body_hash, max_attempts, submitted_at, origin, traceparent, hints, terms, status, generation, attempt,
    selected_agent
FROM moved
WHERE status = 'queued';

-- name: due_retries
-- why: how many wait for the retry budget; counted only while some do
SELECT count(*) AS due
FROM (
    SELECT FROM tasks t WHERE t.status = 'retrying' AND t.next_run_at <= to_timestamp($1) LIMIT 10000
) w;

-- name: cancel
-- why: a waiting task ends here; a running one is marked, and its agent's answer ends it
-- Delivery 0 says that the attempt was never begun.
WITH before AS (
    SELECT b.status FROM tasks b WHERE b.task_id = $1 FOR UPDATE
),
marked AS (
    UPDATE tasks t
    SET
        status = CASE WHEN t.status = 'running' THEN t.status ELSE 'cancelled' END,
        cancel_requested_at = COALESCE(t.cancel_requested_at, to_timestamp($2)),
        next_run_at = NULL,
        updated_at = to_timestamp($2)
    FROM before
    WHERE t.task_id = $1
        AND COALESCE(t.status, '') IN ('queued', 'running', 'retrying')
        AND NOT EXISTS (SELECT FROM task_results r WHERE r.task_id = t.task_id)
    RETURNING
        t.task_id, t.status, t.request_id, t.task_type, t.priority, t.generation, t.attempt, t.submitted_at,
        t.started_at, before.status AS was
),
ended AS (
    INSERT INTO task_results (
        task_id, status, request_id, task_type, priority, replica, generation, attempt, delivery, submitted_at,
        started_at, completed_at
    )
    SELECT
        m.task_id, 'cancelled', m.request_id, m.task_type, m.priority, '', m.generation, m.attempt,
        CASE WHEN m.was = 'queued' THEN 0 ELSE 1 END, m.submitted_at, m.started_at, to_timestamp($2)
    FROM marked m
    WHERE m.status = 'cancelled'
    ON CONFLICT (task_id) DO NOTHING
)
SELECT status FROM marked;

-- name: reopen
-- why: the only way out of a terminal state: its row becomes history, the task a new generation with a new budget
-- A deadline that is over would end the task again at once, so it goes.
WITH past AS (
    DELETE FROM task_results r
    USING tasks t
    WHERE r.task_id = $1 AND t.task_id = r.task_id AND r.status <> 'success'
    RETURNING
        r.task_id, r.agent_id, r.status, r.result, r.error, r.error_type, r.retryable, r.generation, r.attempt,
        r.delivery, r.replica, r.started_at, r.completed_at
),
noted AS (
    INSERT INTO attempts (
        task_id, generation, attempt, delivery, agent, replica, status, error, error_type, started_at, completed_at
    )
    SELECT
        p.task_id, p.generation, p.attempt, p.delivery, COALESCE(p.agent_id, ''), p.replica, p.status, p.error,
        p.error_type, p.started_at, p.completed_at
    FROM past p
    ON CONFLICT (task_id, generation, attempt, delivery) DO UPDATE
    SET
        status = EXCLUDED.status, error = EXCLUDED.error, error_type = EXCLUDED.error_type,
        completed_at = EXCLUDED.completed_at
),
redriven AS (
    UPDATE dead_letters d
    SET redriven_at = to_timestamp($2), history = d.history || jsonb_build_array(to_jsonb(p))
    FROM past p
    WHERE d.task_id = p.task_id AND p.status = 'dead_letter'
)
UPDATE tasks t
SET
    status = 'queued', generation = t.generation + 1, attempt = 1, next_run_at = NULL, started_at = NULL, legs = NULL,
    cancel_requested_at = NULL, updated_at = to_timestamp($2),
    deadline = CASE WHEN t.deadline > to_timestamp($2) THEN t.deadline END
FROM past p
WHERE t.task_id = p.task_id
RETURNING
    t.task_id, t.request_id, t.task_type, t.payload, t.requirements, t.metadata, t.priority, t.timeout_seconds,
    t.deadline, t.idempotency_key, t.body_hash, t.max_attempts, t.submitted_at, t.origin, t.traceparent, t.hints, t.terms,
    t.status, t.generation, t.attempt, t.selected_agent;

-- name: standing
-- why: tells "unknown" from "ended" after an update that touched nothing
SELECT COALESCE(r.status, t.status) AS status, t.task_id IS NOT NULL AS has_task
FROM (SELECT $1::text AS task_id) w
LEFT JOIN tasks t ON t.task_id = w.task_id
LEFT JOIN task_results r ON r.task_id = w.task_id
WHERE t.task_id IS NOT NULL OR r.task_id IS NOT NULL;
