-- name: plan
-- why: tasks that run later: their rows only, decided when they are due; those that were there already come back
-- The last news of such a task is its time: nobody looks for it before then.
WITH i AS MATERIALIZED (
    SELECT
        i.task_id, i.request_id, COALESCE(i.task_type, ($3::text[])[1]) AS task_type, i.payload,
        COALESCE(i.requirements, ($5::text[])[1]) AS requirements,
        COALESCE(i.metadata, ($6::text[])[1]) AS metadata, COALESCE(i.priority, ($7::int[])[1]) AS priority,
        i.timeout_seconds, i.deadline, i.idempotency_key, COALESCE(i.body_hash, ($11::bytea[])[1]) AS body_hash,
        i.max_attempts, i.submitted_at, COALESCE(i.origin, ($14::text[])[1]) AS origin, i.traceparent, i.run_at,
        i.hints, i.terms
    FROM unnest(
        $1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::int[], $8::float8[], $9::float8[],
        $10::text[], $11::bytea[], $12::int[], $13::float8[], $14::text[], $15::text[], $16::float8[],
        $17::text[], $18::text[]
    ) AS i (
        task_id, request_id, task_type, payload, requirements, metadata, priority, timeout_seconds, deadline,
        idempotency_key, body_hash, max_attempts, submitted_at, origin, traceparent, run_at, hints, terms
    )
),
planned AS (
    INSERT INTO tasks (
        task_id, request_id, task_type, payload, requirements, metadata, priority, timeout_seconds, deadline,
        idempotency_key, body_hash, max_attempts, submitted_at, origin, traceparent,
        status, generation, attempt, next_run_at, run_at, updated_at, hints, terms
    )
    SELECT
        i.task_id, i.request_id, i.task_type, i.payload::json, i.requirements::jsonb, i.metadata::jsonb, i.priority,
        i.timeout_seconds, to_timestamp(i.deadline), i.idempotency_key, i.body_hash, i.max_attempts,
        to_timestamp(i.submitted_at), i.origin, i.traceparent,
        'queued', 1, 1, to_timestamp(i.run_at), to_timestamp(i.run_at), to_timestamp(i.run_at),
        i.hints::json, i.terms::jsonb
    FROM i
    -- Touched for the same reason as in `accept`: whoever is answered with it was promised it.
    ON CONFLICT (task_id) DO UPDATE
    SET updated_at = tasks.updated_at + interval '1 microsecond'
    WHERE tasks.updated_at = tasks.submitted_at
    RETURNING task_id, xmax = 0 AS is_new
)
SELECT i.task_id
FROM i
WHERE (i.task_id IN (SELECT task_id FROM planned WHERE is_new)) IS NOT TRUE;

-- name: hand_back
-- why: a router that stops gives back what it claimed and could not send; with a time of its own it waits for claim_planned
UPDATE tasks t
SET next_run_at = to_timestamp($3::float8), updated_at = GREATEST(now(), to_timestamp($3))
FROM unnest($1::text[], $2::int[]) AS i (task_id, generation)
WHERE t.task_id = i.task_id
    AND t.status = 'queued'
    AND t.generation = i.generation
    AND t.next_run_at IS NULL
    AND NOT EXISTS (SELECT FROM task_results r WHERE r.task_id = t.task_id);

-- name: claim_planned
-- why: each task whose time has come goes to one claimer, for the dispatch nobody has made yet
WITH due AS (
    SELECT t.task_id
    FROM tasks t
    WHERE t.status = 'queued' AND t.next_run_at <= to_timestamp($1)
    ORDER BY t.next_run_at
    LIMIT $2
    FOR UPDATE SKIP LOCKED
)
UPDATE tasks t
SET next_run_at = NULL, updated_at = GREATEST(now(), to_timestamp($1))
FROM due
WHERE t.task_id = due.task_id
RETURNING
    t.task_id, t.request_id, t.task_type, t.payload, t.requirements, t.metadata, t.priority, t.timeout_seconds,
    t.deadline, t.idempotency_key, t.body_hash, t.max_attempts, t.submitted_at, t.origin, t.traceparent, t.hints, t.terms,
    t.status, t.generation, t.attempt, t.selected_agent;
