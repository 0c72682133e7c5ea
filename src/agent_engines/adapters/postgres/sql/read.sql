-- name: origin
-- why: who submitted a task hears of its cancellation; nobody else needs to know the name
SELECT t.origin FROM tasks t WHERE t.task_id = $1;

-- name: several
-- why: tasks as the outside sees them; many readers at once share one look
-- An outcome whose task is not there (yet) can be read too. As many as their results fit into $2 bytes (as stored), at least one.
SELECT
    s.task_id, COALESCE(s.t_request_id, r.request_id) AS request_id, COALESCE(s.t_task_type, r.task_type) AS task_type,
    COALESCE(r.status, s.t_status) AS status, COALESCE(r.agent_id, s.t_agent) AS selected_agent,
    COALESCE(s.t_priority, r.priority) AS priority, s.attempt, r.attempt AS last_attempt, r.delivery,
    COALESCE(s.t_submitted_at, r.submitted_at) AS submitted_at, COALESCE(r.started_at, s.t_started_at) AS started_at,
    r.completed_at, r.execution_time_ms, r.result, r.error, r.error_type, r.retryable, s.traceparent, s.deadline,
    s.metadata, r.quality, r.cost, r.tokens, s.run_at, s.terms, u.cost AS used_cost, u.tokens AS used_tokens, s.found
FROM (
    SELECT
        w.task_id, t.request_id AS t_request_id, t.task_type AS t_task_type, t.status AS t_status,
        t.selected_agent AS t_agent, t.priority AS t_priority, t.attempt, t.submitted_at AS t_submitted_at,
        t.started_at AS t_started_at, t.traceparent, t.deadline, t.metadata, t.run_at, t.terms,
        count(*) OVER () AS found,
        sum(pg_column_size(o.result)) OVER (ORDER BY w.task_id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS size
    FROM (SELECT DISTINCT unnest($1::text[]) AS task_id) w
    LEFT JOIN tasks t ON t.task_id = w.task_id
    LEFT JOIN task_results o ON o.task_id = w.task_id
    WHERE t.task_id IS NOT NULL OR o.task_id IS NOT NULL
) s
LEFT JOIN task_results r ON r.task_id = s.task_id
LEFT JOIN LATERAL (
    SELECT COALESCE(sum(a.cost), 0) AS cost, COALESCE(sum(a.tokens), 0)::bigint AS tokens
    FROM attempts a
    WHERE s.terms IS NOT NULL AND a.task_id = s.task_id AND a.status = 'retrying'
) u ON true
WHERE COALESCE(s.size, 0) < $2::bigint;

-- name: ended
-- why: the outcomes of many tasks at once, as many as their results fit into $2 bytes (as stored), at least one
SELECT
    r.task_id, COALESCE(t.request_id, r.request_id) AS request_id, COALESCE(t.task_type, r.task_type) AS task_type,
    r.status, COALESCE(r.agent_id, t.selected_agent) AS selected_agent, COALESCE(t.priority, r.priority) AS priority,
    t.attempt, r.attempt AS last_attempt, r.delivery, COALESCE(t.submitted_at, r.submitted_at) AS submitted_at,
    COALESCE(r.started_at, t.started_at) AS started_at, r.completed_at, r.execution_time_ms, r.result, r.error,
    r.error_type, r.retryable, t.traceparent, t.deadline, t.metadata, r.quality, r.cost, t.run_at, t.terms, r.found
FROM (
    SELECT
        o.*, count(*) OVER () AS found,
        sum(pg_column_size(o.result)) OVER (ORDER BY o.task_id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS size
    FROM task_results o
    WHERE o.task_id = ANY($1::text[])
) r
LEFT JOIN tasks t ON t.task_id = r.task_id
WHERE COALESCE(r.size, 0) < $2::bigint;

-- name: tasks_page
-- why: newest first along tasks_by_time, for every status or for success, which most tasks have
-- Filters look at the hints, whose statistics the planner knows; what is shown is the outcome.
SELECT
    t.task_id, t.request_id, t.task_type, COALESCE(r.status, t.status) AS status,
    COALESCE(r.agent_id, t.selected_agent) AS selected_agent, t.priority, t.attempt, r.attempt AS last_attempt,
    r.delivery, t.submitted_at, COALESCE(r.started_at, t.started_at) AS started_at, r.completed_at,
    r.execution_time_ms, NULL::jsonb AS result, r.error, r.error_type, r.retryable, t.traceparent, t.deadline,
    t.metadata, r.quality, r.cost, t.run_at, t.terms
FROM tasks t
LEFT JOIN task_results r ON r.task_id = t.task_id
WHERE (t.submitted_at, t.task_id) < (to_timestamp(0) + $1::bigint * interval '1 microsecond', $2::text)
    AND t.submitted_at >= to_timestamp($3)
    AND ($4::text IS NULL OR t.status = $4)
    AND ($5::text IS NULL OR t.task_type = $5)
    AND ($6::text IS NULL OR t.selected_agent = $6)
ORDER BY t.submitted_at DESC, t.task_id DESC
LIMIT $7;

-- name: tasks_page_unhappy
-- why: the few that did not go well, along tasks_unhappy
SELECT
    t.task_id, t.request_id, t.task_type, COALESCE(r.status, t.status) AS status,
    COALESCE(r.agent_id, t.selected_agent) AS selected_agent, t.priority, t.attempt, r.attempt AS last_attempt,
    r.delivery, t.submitted_at, COALESCE(r.started_at, t.started_at) AS started_at, r.completed_at,
    r.execution_time_ms, NULL::jsonb AS result, r.error, r.error_type, r.retryable, t.traceparent, t.deadline,
    t.metadata, r.quality, r.cost, t.run_at, t.terms
FROM tasks t
LEFT JOIN task_results r ON r.task_id = t.task_id
WHERE (t.submitted_at, t.task_id) < (to_timestamp(0) + $1::bigint * interval '1 microsecond', $2::text)
    AND t.submitted_at >= to_timestamp($3)
    AND t.status IN ('failed', 'dead_letter', 'cancelled', 'expired')
    AND t.status = $4::text
    AND ($5::text IS NULL OR t.task_type = $5)
    AND ($6::text IS NULL OR t.selected_agent = $6)
ORDER BY t.submitted_at DESC, t.task_id DESC
LIMIT $7;

-- name: tasks_page_open
-- why: what is under way is few, found along tasks_open and sorted
SELECT
    t.task_id, t.request_id, t.task_type, t.status, t.selected_agent, t.priority, t.attempt,
    NULL::int AS last_attempt, NULL::int AS delivery, t.submitted_at, t.started_at, NULL::timestamptz AS completed_at,
    NULL::float8 AS execution_time_ms, NULL::jsonb AS result, NULL::text AS error, NULL::text AS error_type,
    NULL::bool AS retryable, t.traceparent, t.deadline, t.metadata, NULL::float8 AS quality, NULL::float8 AS cost,
    t.run_at, t.terms
FROM tasks t
WHERE (t.submitted_at, t.task_id) < (to_timestamp(0) + $1::bigint * interval '1 microsecond', $2::text)
    AND t.submitted_at >= to_timestamp($3)
    AND t.status IN ('queued', 'running', 'retrying')
    AND t.status = $4::text
    AND ($5::text IS NULL OR t.task_type = $5)
    AND ($6::text IS NULL OR t.selected_agent = $6)
    AND NOT EXISTS (SELECT FROM task_results r WHERE r.task_id = t.task_id)
ORDER BY t.submitted_at DESC, t.task_id DESC
LIMIT $7;

-- name: attempts
-- why: attempts that did not end the task, and those that run while it is open
SELECT
    a.attempt, a.generation, a.agent, a.replica, a.status, a.started_at, a.completed_at, a.error_type, a.error
FROM attempts a
WHERE a.task_id = $1
    AND (
        a.status <> 'running'
        OR NOT EXISTS (SELECT FROM task_results r WHERE r.task_id = a.task_id)
    )
ORDER BY a.generation, a.attempt, a.delivery
LIMIT 1000;

-- name: dead_letters
-- why: newest first along dead_letters_by_time
SELECT d.task_id, d.task_type, d.agent, d.reason, d.attempts, d.created_at, d.redriven_at
FROM dead_letters d
WHERE (d.created_at, d.task_id) < (to_timestamp(0) + $1::bigint * interval '1 microsecond', $2::text)
ORDER BY d.created_at DESC, d.task_id DESC
LIMIT $3;

-- name: dead_letter
-- why: one dead letter
SELECT d.task_id, d.task_type, d.agent, d.reason, d.attempts, d.created_at, d.redriven_at
FROM dead_letters d
WHERE d.task_id = $1;

-- name: counts
-- why: open tasks by their hint, ended ones by their outcome
SELECT t.status, count(*) AS tasks
FROM tasks t
WHERE t.status IN ('queued', 'running', 'retrying')
    AND NOT EXISTS (SELECT FROM task_results r WHERE r.task_id = t.task_id)
GROUP BY t.status
UNION ALL
SELECT r.status, count(*)
FROM task_results r
GROUP BY r.status;
