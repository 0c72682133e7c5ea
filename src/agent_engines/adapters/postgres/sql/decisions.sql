-- name: decision
-- why: one decision by its name
SELECT
    d.id, d.request_id, d.task_id, d.task_type, d.selected_agent, d.confidence, d.propensity, d.strategy,
    d.policy_version, d.explored, d.reasoning, d.context_data, d.system_state, d.created_at,
    d.features, d.embedding, d.state_sequence
FROM decision_history d
WHERE d.request_id = $1;

-- name: decisions_page
-- why: newest first along decision_history_by_time
SELECT
    d.id, d.request_id, d.task_id, d.task_type, d.selected_agent, d.confidence, d.propensity, d.strategy,
    d.policy_version, d.explored, d.reasoning, d.context_data, d.system_state, d.created_at
FROM decision_history d
WHERE (d.created_at, d.id) < (to_timestamp(0) + $1::bigint * interval '1 microsecond', $2::bigint)
    AND d.created_at >= to_timestamp($3)
    AND ($4::text IS NULL OR d.selected_agent = $4)
ORDER BY d.created_at DESC, d.id DESC
LIMIT $5;

-- name: decisions_page_of_type
-- why: the same for one task type, along idx_decision_history_task_type
SELECT
    d.id, d.request_id, d.task_id, d.task_type, d.selected_agent, d.confidence, d.propensity, d.strategy,
    d.policy_version, d.explored, d.reasoning, d.context_data, d.system_state, d.created_at
FROM decision_history d
WHERE (d.created_at, d.id) < (to_timestamp(0) + $1::bigint * interval '1 microsecond', $2::bigint)
    AND d.created_at <= to_timestamp(0) + $1::bigint * interval '1 microsecond'
    AND d.created_at >= to_timestamp($3)
    AND ($4::text IS NULL OR d.selected_agent = $4)
    AND d.task_type = $6
ORDER BY d.created_at DESC, d.id DESC
LIMIT $5;

-- name: history
-- why: what each dispatch led to: the outcome of its own generation, or the failed attempt that made another one necessary
-- What others say about the work counts before what its handler said. Of more than asked for the newest, oldest first.
WITH newest AS (
    SELECT id
    FROM decision_history
    WHERE created_at >= to_timestamp($1) AND task_id IS NOT NULL
    ORDER BY created_at DESC, id DESC
    LIMIT $2
)
SELECT
    d.id, d.request_id, d.task_id, d.task_type, d.selected_agent, d.confidence, d.propensity, d.strategy,
    d.policy_version, d.explored, d.reasoning, d.context_data, d.system_state, d.created_at,
    d.features, d.embedding, d.state_sequence,
    COALESCE(r.status, a.status) AS status, COALESCE(f.quality, r.quality) AS quality, r.cost, r.execution_time_ms
FROM newest n
JOIN decision_history d ON d.id = n.id
LEFT JOIN task_results r ON r.task_id = d.task_id AND r.generation = d.generation
LEFT JOIN LATERAL (
    SELECT e.status
    FROM attempts e
    WHERE r.task_id IS NULL AND e.task_id = d.task_id AND e.generation = d.generation AND e.status <> 'running'
    ORDER BY e.attempt DESC, e.delivery DESC
    LIMIT 1
) a ON true
LEFT JOIN LATERAL (
    SELECT avg(j.quality) AS quality
    FROM task_feedback j
    WHERE j.task_id = r.task_id AND j.generation = r.generation
) f ON true
ORDER BY d.created_at, d.id;

-- name: outlines
-- why: history as far as judging policies needs it; the words and the numbers are most of the bytes
SELECT
    d.request_id, d.task_id, d.task_type, d.selected_agent, d.confidence, d.propensity, d.strategy,
    d.policy_version, d.explored, d.created_at,
    COALESCE(d.system_state -> 'eligible', d.system_state #> '{candidates,agent}')::text AS agents,
    COALESCE(r.status, a.status) AS status, COALESCE(f.quality, r.quality) AS quality, r.cost, r.execution_time_ms
FROM decision_history d
LEFT JOIN task_results r ON r.task_id = d.task_id AND r.generation = d.generation
LEFT JOIN LATERAL (
    SELECT e.status
    FROM attempts e
    WHERE r.task_id IS NULL AND e.task_id = d.task_id AND e.generation = d.generation AND e.status <> 'running'
    ORDER BY e.attempt DESC, e.delivery DESC
    LIMIT 1
) a ON true
LEFT JOIN LATERAL (
    SELECT avg(j.quality) AS quality
    FROM task_feedback j
    WHERE j.task_id = r.task_id AND j.generation = r.generation
) f ON true
WHERE d.created_at >= to_timestamp($1) AND d.task_id IS NOT NULL
ORDER BY d.created_at, d.id
LIMIT $2;

-- name: outlines_of
-- why: the same of decisions known by name, whose end or judgement was still to come
SELECT
    d.request_id, d.task_id, d.task_type, d.selected_agent, d.confidence, d.propensity, d.strategy,
    d.policy_version, d.explored, d.created_at,
    COALESCE(d.system_state -> 'eligible', d.system_state #> '{candidates,agent}')::text AS agents,
    COALESCE(r.status, a.status) AS status, COALESCE(f.quality, r.quality) AS quality, r.cost, r.execution_time_ms
FROM decision_history d
LEFT JOIN task_results r ON r.task_id = d.task_id AND r.generation = d.generation
LEFT JOIN LATERAL (
    SELECT e.status
    FROM attempts e
    WHERE r.task_id IS NULL AND e.task_id = d.task_id AND e.generation = d.generation AND e.status <> 'running'
    ORDER BY e.attempt DESC, e.delivery DESC
    LIMIT 1
) a ON true
LEFT JOIN LATERAL (
    SELECT avg(j.quality) AS quality
    FROM task_feedback j
    WHERE j.task_id = r.task_id AND j.generation = r.generation
) f ON true
WHERE d.request_id = ANY($1::text[]) AND d.task_id IS NOT NULL;
