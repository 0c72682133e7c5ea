-- name: feedback_add
-- why: the task's present end is judged; nothing comes back when there is none, or this source judged it before
INSERT INTO task_feedback (
    task_id, generation, attempt, task_type, agent, status, source, quality, comment, created_at
)
SELECT r.task_id, r.generation, r.attempt, r.task_type, r.agent_id, r.status, $2, $3, $4, to_timestamp($5)
FROM task_results r
WHERE r.task_id = $1
ON CONFLICT (task_id, generation, source) DO NOTHING
RETURNING
    task_id, generation, attempt, task_type, agent, status, source, quality, comment, created_at, recorded_at;

-- name: feedback_known
-- why: what this source said about the task's present end
SELECT
    f.task_id, f.generation, f.attempt, f.task_type, f.agent, f.status, f.source, f.quality, f.comment, f.created_at,
    f.recorded_at
FROM task_feedback f
JOIN task_results r ON r.task_id = f.task_id AND r.generation = f.generation
WHERE f.task_id = $1 AND f.source = $2;

-- name: feedback_of
-- why: everything that was said about one task
SELECT
    f.task_id, f.generation, f.attempt, f.task_type, f.agent, f.status, f.source, f.quality, f.comment, f.created_at,
    f.recorded_at
FROM task_feedback f
WHERE f.task_id = $1
ORDER BY f.created_at, f.generation, f.source
LIMIT 1000;

-- name: feedback_untold
-- why: the outbox: judgements that never came back from the log of reports, along task_feedback_untold
SELECT
    f.task_id, f.generation, f.attempt, f.task_type, f.agent, f.status, f.source, f.quality, f.comment, f.created_at,
    f.recorded_at
FROM task_feedback f
WHERE f.recorded_at IS NULL AND f.agent IS NOT NULL AND f.created_at < to_timestamp($1)
ORDER BY f.created_at, f.task_id
LIMIT $2;

-- name: record_feedback
-- why: a judgement is learned once; one that is not in the table (restored from an older copy) is written from its report
WITH i AS MATERIALIZED (
    SELECT *
    FROM unnest(
        $1::int[], $2::text[], $3::int[], $4::int[], $5::text[], $6::text[], $7::text[], $8::text[], $9::float8[],
        $10::text[], $11::float8[]
    ) AS i (
        place, task_id, generation, attempt, task_type, agent, status, source, quality, comment, created_at
    )
),
learned AS (
    INSERT INTO task_feedback (
        task_id, generation, attempt, task_type, agent, status, source, quality, comment, created_at, recorded_at
    )
    SELECT
        i.task_id, i.generation, i.attempt, i.task_type, i.agent, i.status, i.source, i.quality, i.comment,
        to_timestamp(i.created_at), now()
    FROM i
    ON CONFLICT (task_id, generation, source) DO UPDATE
    SET recorded_at = now()
    WHERE task_feedback.recorded_at IS NULL
    RETURNING task_id, generation, source
)
SELECT i.place, 'duplicate' AS verdict
FROM i
WHERE NOT EXISTS (
    SELECT
    FROM learned l
    WHERE l.task_id = i.task_id AND l.generation = i.generation AND l.source = i.source
);
