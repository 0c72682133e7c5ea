-- name: record_finals
-- why: the first terminal row wins; only rows that did not simply end their task come back
-- A task's own row may not be there yet (its acceptance commits in parallel): its outcome is kept all the same.
-- COALESCE around the status keeps the planner from walking the index of all open tasks: counted while none was open, it
-- looks like the cheapest way to find one, and stays so in the prepared plan when a million are.
-- `done` asks for all keys in one look, which is cheaper than one look for each.
-- Of a hedged task (tasks.legs) only the last leg's failure ends it; the others come back as "leg" (record_falls), and one
-- that was cancelled because the other leg had won as "outrun" (record_outrun).
WITH i AS MATERIALIZED (
    SELECT
        i.place, i.task_id, i.request_id, COALESCE(i.task_type, ($4::text[])[1]) AS task_type, i.agent,
        COALESCE(i.replica, ($6::text[])[1]) AS replica, COALESCE(i.generation, ($7::int[])[1]) AS generation,
        COALESCE(i.attempt, ($8::int[])[1]) AS attempt, COALESCE(i.delivery, ($9::int[])[1]) AS delivery,
        COALESCE(i.status, ($10::text[])[1]) AS status, i.result, i.error, i.error_type, i.retryable,
        i.started_at, i.completed_at, i.execution_time_ms, i.quality, i.cost,
        COALESCE(i.priority, ($20::int[])[1]) AS priority, i.submitted_at, i.tokens
    FROM unnest(
        $1::int[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::int[], $8::int[], $9::int[],
        $10::text[], $11::text[], $12::text[], $13::text[], $14::bool[], $15::float8[], $16::float8[], $17::float8[],
        $18::float8[], $19::float8[], $20::int[], $21::float8[], $24::bigint[]
    ) AS i (
        place, task_id, request_id, task_type, agent, replica, generation, attempt, delivery,
        status, result, error, error_type, retryable, started_at, completed_at, execution_time_ms,
        quality, cost, priority, submitted_at, tokens
    )
),
done AS MATERIALIZED (
    SELECT r.task_id FROM task_results r WHERE r.task_id = ANY ($2::text[])
),
healed AS (
    UPDATE tasks t
    SET status = r.status, next_run_at = NULL
    FROM task_results r
    WHERE t.task_id = ANY ($22::text[]) AND r.task_id = t.task_id AND t.status <> r.status
),
met AS (
    INSERT INTO agents (name)
    SELECT a.name
    FROM unnest($23::text[]) AS a (name)
    WHERE NOT EXISTS (SELECT FROM agents k WHERE k.name = a.name)
    ON CONFLICT (name) DO NOTHING
),
ended AS (
    UPDATE tasks t
    SET
        status = i.status,
        selected_agent = COALESCE(i.agent, t.selected_agent),
        started_at = COALESCE(to_timestamp(i.started_at), t.started_at),
        next_run_at = NULL,
        updated_at = COALESCE(to_timestamp(i.completed_at), now())
    FROM i
    WHERE t.task_id = i.task_id
        AND COALESCE(t.status, '') IN ('queued', 'running', 'retrying')
        AND (
            i.status = 'success'
            OR (t.legs IS NULL AND t.generation = i.generation)
            OR (t.legs ? i.generation::text AND t.legs - i.generation::text = '{}')
            OR (i.status = 'cancelled' AND t.cancel_requested_at IS NOT NULL)
        )
        AND (i.task_id IN (SELECT task_id FROM done)) IS NOT TRUE
    RETURNING
        t.task_id,
        i.status = 'success'
            AND NOT COALESCE(t.legs ? i.generation::text, t.generation = i.generation) AS late
),
written AS (
    INSERT INTO task_results (
        task_id, agent_id, status, result, error, error_type, retryable, execution_time_ms, quality, cost,
        request_id, task_type, priority, replica, generation, attempt, delivery, submitted_at, started_at, completed_at,
        tokens
    )
    SELECT
        i.task_id, i.agent, i.status, i.result::jsonb, i.error, i.error_type, i.retryable, i.execution_time_ms,
        i.quality, i.cost, i.request_id, i.task_type, i.priority, i.replica, i.generation, i.attempt, i.delivery,
        to_timestamp(i.submitted_at), to_timestamp(i.started_at), to_timestamp(i.completed_at), i.tokens
    FROM i
    WHERE i.task_id IN (SELECT task_id FROM ended)
        OR NOT EXISTS (SELECT FROM tasks t WHERE t.task_id = i.task_id)
    ON CONFLICT (task_id) DO NOTHING
    RETURNING task_id
),
buried AS (
    INSERT INTO dead_letters (task_id, task_type, agent, reason, attempts, error, created_at)
    SELECT
        i.task_id, i.task_type, i.agent, COALESCE(NULLIF(i.error, ''), i.error_type, 'no reason was given'), i.attempt,
        jsonb_build_object('type', i.error_type, 'message', i.error, 'retryable', i.retryable),
        COALESCE(to_timestamp(i.completed_at), now())
    FROM i
    WHERE i.status = 'dead_letter' AND (i.task_id IN (SELECT task_id FROM written)) IS TRUE
    ON CONFLICT (task_id) DO UPDATE
    SET
        agent = EXCLUDED.agent, reason = EXCLUDED.reason, attempts = EXCLUDED.attempts, error = EXCLUDED.error,
        created_at = EXCLUDED.created_at, redriven_at = NULL
)
SELECT
    i.place,
    CASE
        WHEN i.task_id IN (SELECT task_id FROM written)
            THEN CASE WHEN i.task_id IN (SELECT task_id FROM ended) THEN 'late' ELSE 'orphan' END
        WHEN r.task_id IS NULL AND i.status <> 'success' AND t.legs ? i.generation::text
            AND t.legs - i.generation::text <> '{}' THEN 'leg'
        WHEN r.task_id IS NULL AND i.status <> 'success' AND t.task_id IS NOT NULL
            AND NOT COALESCE(t.legs ? i.generation::text, t.generation = i.generation) THEN 'stale'
        WHEN r.task_id IS NULL THEN 'lost'
        WHEN (r.status, r.generation, r.attempt, r.delivery) = (i.status, i.generation, i.attempt, i.delivery)
            THEN 'duplicate'
        WHEN i.status = 'cancelled' AND t.cancel_requested_at IS NULL AND r.generation <> i.generation
            AND t.legs ?& ARRAY[i.generation::text, r.generation::text] THEN 'outrun'
        ELSE 'stale'
    END AS verdict
FROM i
LEFT JOIN task_results r ON r.task_id = i.task_id
LEFT JOIN tasks t ON t.task_id = i.task_id
WHERE (i.task_id IN (SELECT task_id FROM ended WHERE NOT late)) IS NOT TRUE
    OR (i.task_id IN (SELECT task_id FROM written)) IS NOT TRUE;

-- name: record_retries
-- why: a failed attempt makes its task due again, once, and only as the current generation
-- A task's own row may not be there yet: the attempt is noted, and the report comes once more (Recording.look_again),
-- since an acceptance that commits beside this sees no more of it than this sees of the task.
-- A task whose cancellation is wanted becomes due at once: whoever claims it cancels it.
-- Of a hedged task only the last leg's failure does that; the others come back as "leg" (record_falls).
WITH i AS MATERIALIZED (
    SELECT *
    FROM unnest(
        $1::int[], $2::text[], $3::text[], $4::text[], $5::int[], $6::int[], $7::int[],
        $8::text[], $9::text[], $10::float8[], $11::float8[], $12::float8[], $13::float8[], $14::bigint[]
    ) AS i (
        place, task_id, agent, replica, generation, attempt, delivery,
        error, error_type, started_at, completed_at, retry_at, cost, tokens
    )
),
moved AS (
    UPDATE tasks t
    SET
        status = 'retrying',
        selected_agent = COALESCE(i.agent, t.selected_agent),
        started_at = COALESCE(to_timestamp(i.started_at), t.started_at),
        next_run_at = CASE
            WHEN t.cancel_requested_at IS NULL THEN to_timestamp(COALESCE(i.retry_at, i.completed_at, 0))
            ELSE to_timestamp(0)
        END,
        legs = NULL,
        updated_at = COALESCE(to_timestamp(i.completed_at), now())
    FROM i
    WHERE t.task_id = i.task_id
        AND (
            (t.legs IS NULL AND t.generation = i.generation)
            OR (t.legs ? i.generation::text AND t.legs - i.generation::text = '{}')
        )
        AND COALESCE(t.status, '') IN ('queued', 'running')
        AND NOT EXISTS (SELECT FROM task_results r WHERE r.task_id = i.task_id)
    RETURNING t.task_id
),
noted AS (
    INSERT INTO attempts (
        task_id, generation, attempt, delivery, agent, replica, status, error, error_type,
        started_at, completed_at, retry_at, cost, tokens
    )
    SELECT
        i.task_id, i.generation, i.attempt, i.delivery, COALESCE(i.agent, ''), i.replica, 'retrying', i.error,
        i.error_type, to_timestamp(i.started_at), to_timestamp(i.completed_at),
        to_timestamp(COALESCE(i.retry_at, i.completed_at, 0)), i.cost, i.tokens
    FROM i
    WHERE i.task_id IN (SELECT task_id FROM moved)
        OR (
            NOT EXISTS (SELECT FROM tasks t WHERE t.task_id = i.task_id)
            AND NOT EXISTS (SELECT FROM task_results r WHERE r.task_id = i.task_id)
        )
    ON CONFLICT (task_id, generation, attempt, delivery) DO UPDATE
    SET
        status = EXCLUDED.status, error = EXCLUDED.error, error_type = EXCLUDED.error_type,
        started_at = COALESCE(EXCLUDED.started_at, attempts.started_at), completed_at = EXCLUDED.completed_at,
        retry_at = EXCLUDED.retry_at, cost = EXCLUDED.cost, tokens = EXCLUDED.tokens
    WHERE attempts.status = 'running'
    RETURNING task_id
)
SELECT
    i.place,
    CASE
        WHEN i.task_id IN (SELECT task_id FROM noted) THEN 'early'
        WHEN t.status IN ('queued', 'running') AND t.legs ? i.generation::text
            AND t.legs - i.generation::text <> '{}' THEN 'leg'
        WHEN a.status <> 'running' THEN 'duplicate'
        ELSE 'stale'
    END AS verdict
FROM i
LEFT JOIN tasks t ON t.task_id = i.task_id
LEFT JOIN attempts a
    ON a.task_id = i.task_id AND a.generation = i.generation AND a.attempt = i.attempt AND a.delivery = i.delivery
WHERE (i.task_id IN (SELECT task_id FROM moved)) IS NOT TRUE;

-- name: record_starts
-- why: a start is news while the task is open and the attempt is unknown; one that comes after its own end is not
WITH i AS MATERIALIZED (
    SELECT *
    FROM unnest(
        $1::int[], $2::text[], $3::text[], $4::text[], $5::int[], $6::int[], $7::int[], $8::float8[]
    ) AS i (place, task_id, agent, replica, generation, attempt, delivery, started_at)
),
moved AS (
    UPDATE tasks t
    SET
        status = 'running',
        selected_agent = CASE WHEN t.legs IS NULL THEN COALESCE(i.agent, t.selected_agent) ELSE t.selected_agent END,
        started_at = COALESCE(to_timestamp(i.started_at), t.started_at),
        updated_at = COALESCE(to_timestamp(i.started_at), now())
    FROM i
    WHERE t.task_id = i.task_id
        AND COALESCE(t.legs ? i.generation::text, t.generation = i.generation)
        AND COALESCE(t.status, '') IN ('queued', 'running')
        AND NOT EXISTS (SELECT FROM task_results r WHERE r.task_id = i.task_id)
        AND NOT EXISTS (
            SELECT
            FROM attempts a
            WHERE a.task_id = i.task_id AND a.generation = i.generation AND a.attempt = i.attempt
                AND a.delivery = i.delivery
        )
    RETURNING t.task_id
),
noted AS (
    INSERT INTO attempts (task_id, generation, attempt, delivery, agent, replica, status, started_at)
    SELECT
        i.task_id, i.generation, i.attempt, i.delivery, COALESCE(i.agent, ''), i.replica, 'running',
        to_timestamp(i.started_at)
    FROM i
    WHERE i.task_id IN (SELECT task_id FROM moved)
        OR (
            NOT EXISTS (SELECT FROM tasks t WHERE t.task_id = i.task_id)
            AND NOT EXISTS (SELECT FROM task_results r WHERE r.task_id = i.task_id)
        )
    ON CONFLICT (task_id, generation, attempt, delivery) DO NOTHING
    RETURNING task_id
)
SELECT
    i.place,
    CASE WHEN a.task_id IS NOT NULL THEN 'duplicate' ELSE 'stale' END AS verdict
FROM i
LEFT JOIN attempts a
    ON a.task_id = i.task_id AND a.generation = i.generation AND a.attempt = i.attempt AND a.delivery = i.delivery
WHERE (i.task_id IN (SELECT task_id FROM noted)) IS NOT TRUE;

-- name: record_falls
-- why: one leg of a hedged task has failed: noted as an attempt that did not end it, while the other leg goes on
-- Of two that fail at the same moment one waits for the other here, finds itself the last, and comes to record_finals again.
WITH i AS MATERIALIZED (
    SELECT *
    FROM unnest(
        $1::int[], $2::text[], $3::text[], $4::text[], $5::int[], $6::int[], $7::int[],
        $8::text[], $9::text[], $10::float8[], $11::float8[], $12::float8[], $13::float8[], $14::bigint[]
    ) AS i (
        place, task_id, agent, replica, generation, attempt, delivery,
        error, error_type, started_at, completed_at, retry_at, cost, tokens
    )
),
fallen AS (
    UPDATE tasks t
    SET
        legs = t.legs - i.generation::text,
        selected_agent = (SELECT min(other.value) FROM jsonb_each_text(t.legs - i.generation::text) other),
        updated_at = COALESCE(to_timestamp(i.completed_at), now())
    FROM i
    WHERE t.task_id = i.task_id
        AND t.legs ? i.generation::text
        AND t.legs - i.generation::text <> '{}'
        AND COALESCE(t.status, '') IN ('queued', 'running')
        AND NOT EXISTS (SELECT FROM task_results r WHERE r.task_id = i.task_id)
    RETURNING t.task_id
),
noted AS (
    INSERT INTO attempts (
        task_id, generation, attempt, delivery, agent, replica, status, error, error_type, started_at, completed_at,
        cost, tokens
    )
    SELECT
        i.task_id, i.generation, i.attempt, i.delivery, COALESCE(i.agent, ''), i.replica, 'retrying', i.error,
        i.error_type, to_timestamp(i.started_at), to_timestamp(i.completed_at), i.cost, i.tokens
    FROM i
    WHERE i.task_id IN (SELECT task_id FROM fallen)
    ON CONFLICT (task_id, generation, attempt, delivery) DO UPDATE
    SET
        status = EXCLUDED.status, error = EXCLUDED.error, error_type = EXCLUDED.error_type,
        started_at = COALESCE(EXCLUDED.started_at, attempts.started_at), completed_at = EXCLUDED.completed_at,
        cost = EXCLUDED.cost, tokens = EXCLUDED.tokens
    WHERE attempts.status = 'running'
)
SELECT i.place
FROM i
WHERE (i.task_id IN (SELECT task_id FROM fallen)) IS NOT TRUE;

-- name: record_outrun
-- why: the loser of a hedge: its outcome is unknown, and the record says so
INSERT INTO attempts (
    task_id, generation, attempt, delivery, agent, replica, status, error, error_type, started_at, completed_at
)
SELECT
    i.task_id, i.generation, i.attempt, i.delivery, COALESCE(i.agent, ''), i.replica, 'cancelled',
    (t.legs ->> r.generation::text) || ' was faster', $15, to_timestamp(i.started_at), to_timestamp(i.completed_at)
FROM unnest(
    $1::int[], $2::text[], $3::text[], $4::text[], $5::int[], $6::int[], $7::int[],
    $8::text[], $9::text[], $10::float8[], $11::float8[], $12::float8[], $13::float8[], $14::bigint[]
) AS i (
    place, task_id, agent, replica, generation, attempt, delivery,
    error, error_type, started_at, completed_at, retry_at, cost, tokens
)
JOIN tasks t ON t.task_id = i.task_id
JOIN task_results r ON r.task_id = i.task_id
ON CONFLICT (task_id, generation, attempt, delivery) DO UPDATE
SET
    status = EXCLUDED.status, error = EXCLUDED.error, error_type = EXCLUDED.error_type,
    completed_at = EXCLUDED.completed_at
WHERE attempts.status = 'running';

-- name: heal
-- why: an acceptance and an outcome that committed side by side leave the hint behind; the outcome is right
UPDATE tasks t
SET status = r.status, next_run_at = NULL
FROM task_results r
WHERE t.task_id = ANY ($1::text[]) AND r.task_id = t.task_id AND t.status <> r.status;

-- name: heal_old
-- why: the same for tasks nobody remembers, so that they are not taken for stranded
UPDATE tasks t
SET status = r.status, next_run_at = NULL
FROM task_results r
WHERE r.task_id = t.task_id
    AND t.task_id IN (
        SELECT o.task_id
        FROM tasks o
        JOIN task_results e ON e.task_id = o.task_id
        WHERE o.status IN ('queued', 'running', 'retrying') AND o.updated_at < to_timestamp($1)
        LIMIT $2
    )
RETURNING t.task_id;
