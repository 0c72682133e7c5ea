-- name: accept
-- why: one commit for tasks and their decisions; only the rows that were not new, or whose decision's name was taken, come back
-- An outcome or a retry may have been recorded before its task: the hint starts from what is there.
-- A column whose values are all equal comes as one value (rows.shared): COALESCE fills it up.
-- No ON CONFLICT: asking for all keys in one look ahead is cheaper than probing, reserving and confirming each row. Whoever
-- loses a race gets a unique violation, and the pool runs the whole statement again, which then sees the winner.
-- A decision whose name comes a second time in the same call has none (NULL), and is written under another one afterwards.
-- unnest in the list of a SELECT fills shorter columns with nulls as in FROM, and keeps no copy of each column.
WITH i AS MATERIALIZED (
    SELECT
        i.task_id, i.request_id, COALESCE(i.task_type, ($3::text[])[1]) AS task_type, i.payload,
        COALESCE(i.requirements, ($5::text[])[1]) AS requirements,
        COALESCE(i.metadata, ($6::text[])[1]) AS metadata, COALESCE(i.priority, ($7::int[])[1]) AS priority,
        i.timeout_seconds, i.deadline, i.idempotency_key, COALESCE(i.body_hash, ($11::bytea[])[1]) AS body_hash,
        i.max_attempts, i.submitted_at, COALESCE(i.origin, ($14::text[])[1]) AS origin, i.traceparent,
        i.decision_id, COALESCE(i.selected_agent, ($17::text[])[1]) AS selected_agent, i.confidence,
        COALESCE(i.propensity, ($19::float8[])[1]) AS propensity,
        COALESCE(i.strategy, ($20::text[])[1]) AS strategy,
        COALESCE(i.policy_version, ($21::text[])[1]) AS policy_version,
        COALESCE(i.explored, ($22::bool[])[1]) AS explored, i.reasoning, i.context_data, i.system_state,
        i.decided_at, i.features, i.embedding, i.state_sequence, i.hints, i.terms
    FROM (
        SELECT
            unnest($1::text[]) AS task_id, unnest($2::text[]) AS request_id, unnest($3::text[]) AS task_type,
            unnest($4::text[]) AS payload, unnest($5::text[]) AS requirements, unnest($6::text[]) AS metadata,
            unnest($7::int[]) AS priority, unnest($8::float8[]) AS timeout_seconds, unnest($9::float8[]) AS deadline,
            unnest($10::text[]) AS idempotency_key, unnest($11::bytea[]) AS body_hash,
            unnest($12::int[]) AS max_attempts, unnest($13::float8[]) AS submitted_at, unnest($14::text[]) AS origin,
            unnest($15::text[]) AS traceparent, unnest($16::text[]) AS decision_id,
            unnest($17::text[]) AS selected_agent, unnest($18::float8[]) AS confidence,
            unnest($19::float8[]) AS propensity, unnest($20::text[]) AS strategy,
            unnest($21::text[]) AS policy_version, unnest($22::bool[]) AS explored, unnest($23::text[]) AS reasoning,
            unnest($24::text[]) AS context_data, unnest($25::text[]) AS system_state,
            unnest($26::float8[]) AS decided_at, unnest($27::text[]) AS features, unnest($28::text[]) AS embedding,
            unnest($29::bigint[]) AS state_sequence, unnest($30::text[]) AS hints, unnest($31::text[]) AS terms
    ) i
),
-- Locked: what stands now stays until this commits. One that is withdrawn meanwhile is not among them, and is new again.
known AS MATERIALIZED (
    SELECT t.task_id FROM tasks t WHERE t.task_id = ANY ($1::text[]) FOR NO KEY UPDATE
),
-- Whoever is answered with a task that was there already was promised it: touched, it cannot be withdrawn any more.
promised AS (
    UPDATE tasks t
    SET updated_at = t.updated_at + interval '1 microsecond'
    FROM known k
    WHERE t.task_id = k.task_id AND t.updated_at = t.submitted_at
),
accepted AS (
    INSERT INTO tasks (
        task_id, request_id, task_type, payload, requirements, metadata, priority, timeout_seconds, deadline,
        idempotency_key, body_hash, max_attempts, submitted_at, origin, traceparent,
        status, generation, attempt, selected_agent, next_run_at, started_at, updated_at, hints, terms
    )
    SELECT
        i.task_id, i.request_id, i.task_type, i.payload::json, i.requirements::jsonb, i.metadata::jsonb, i.priority,
        i.timeout_seconds, to_timestamp(i.deadline), i.idempotency_key, i.body_hash, i.max_attempts,
        to_timestamp(i.submitted_at), i.origin, i.traceparent,
        COALESCE(r.status, a.status, 'queued'), 1, 1, i.selected_agent,
        CASE WHEN r.status IS NULL THEN a.retry_at END, a.started_at, to_timestamp(i.submitted_at),
        i.hints::json, i.terms::jsonb
    FROM i
    LEFT JOIN task_results r ON r.task_id = i.task_id
    LEFT JOIN LATERAL (
        SELECT e.status, e.retry_at, e.started_at
        FROM attempts e
        WHERE e.task_id = i.task_id AND e.generation = 1 AND e.status IN ('running', 'retrying')
        ORDER BY e.attempt DESC, e.delivery DESC
        LIMIT 1
    ) a ON true
    WHERE (i.task_id IN (SELECT task_id FROM known)) IS NOT TRUE
    RETURNING task_id
),
taken AS MATERIALIZED (
    SELECT d.request_id FROM decision_history d WHERE d.request_id = ANY ($16::text[])
),
decided AS (
    INSERT INTO decision_history (
        request_id, task_id, generation, task_type, selected_agent, confidence, propensity, strategy, policy_version,
        explored, reasoning, context_data, system_state, created_at, features, embedding, state_sequence
    )
    SELECT
        i.decision_id, i.task_id, 1, i.task_type, i.selected_agent, i.confidence, i.propensity, i.strategy,
        i.policy_version, i.explored, i.reasoning, i.context_data::jsonb, i.system_state::jsonb,
        to_timestamp(i.decided_at), i.features::real[], i.embedding::real[], i.state_sequence
    FROM i
    WHERE (i.task_id IN (SELECT task_id FROM accepted)) IS TRUE
        AND i.decision_id IS NOT NULL
        AND (i.decision_id IN (SELECT request_id FROM taken)) IS NOT TRUE
    RETURNING task_id
)
SELECT i.task_id, (i.task_id IN (SELECT task_id FROM accepted)) AS accepted
FROM i
WHERE (i.task_id IN (SELECT task_id FROM decided)) IS NOT TRUE;

-- name: add_decision
-- why: a caller may name two decisions alike; the later one is kept under a name of its own (see known)
INSERT INTO decision_history (
    request_id, task_id, generation, task_type, selected_agent, confidence, propensity, strategy, policy_version,
    explored, reasoning, context_data, system_state, created_at, features, embedding, state_sequence
)
SELECT
    i.decision_id, i.task_id, i.generation, i.task_type, COALESCE(i.selected_agent, ($2::text[])[1]), i.confidence,
    COALESCE(i.propensity, ($4::float8[])[1]), COALESCE(i.strategy, ($5::text[])[1]),
    COALESCE(i.policy_version, ($6::text[])[1]), COALESCE(i.explored, ($7::bool[])[1]), i.reasoning,
    i.context_data::jsonb, i.system_state::jsonb, to_timestamp(i.decided_at),
    i.features::real[], i.embedding::real[], i.state_sequence
FROM unnest(
    $1::text[], $2::text[], $3::float8[], $4::float8[], $5::text[], $6::text[], $7::bool[], $8::text[],
    $9::text[], $10::text[], $11::float8[], $12::text[], $13::text[], $14::bigint[], $15::text[], $16::text[], $17::int[]
) AS i (
    decision_id, selected_agent, confidence, propensity, strategy, policy_version, explored, reasoning,
    context_data, system_state, decided_at, features, embedding, state_sequence, task_type, task_id, generation
)
ON CONFLICT (request_id) DO NOTHING;

-- name: promise
-- why: whoever is answered with a task that was there already was promised it: touched, it cannot be withdrawn any more
UPDATE tasks
SET updated_at = updated_at + interval '1 microsecond'
WHERE task_id = ANY ($1::text[]) AND updated_at = submitted_at;

-- name: known
-- why: what a repeated submission is answered with
SELECT
    t.task_id AS known_id, t.body_hash, COALESCE(r.status, t.status) AS status, t.max_attempts,
    d.id, d.request_id, d.task_id, d.task_type, d.selected_agent, d.confidence, d.propensity, d.strategy,
    d.policy_version, d.explored, d.reasoning, d.context_data, d.system_state, d.created_at
FROM tasks t
LEFT JOIN task_results r ON r.task_id = t.task_id
LEFT JOIN decision_history d
    ON d.request_id IN (t.request_id, t.request_id || '/' || t.task_id) AND d.task_id = t.task_id
WHERE t.task_id = ANY ($1::text[]);

-- name: renew
-- why: a task that waited in the journal has been silent for long, and yet is not stranded
UPDATE tasks
SET updated_at = GREATEST(updated_at, to_timestamp($2::float8))
WHERE task_id = ANY ($1::text[]) AND COALESCE(status, '') IN ('queued', 'running', 'retrying');

-- name: withdraw
-- why: a dispatch that was refused for certain leaves nothing behind; a task to which anything happened since stays
WITH gone AS (
    DELETE FROM tasks t
    WHERE t.task_id = ANY ($1::text[])
        AND t.updated_at = t.submitted_at
        AND NOT EXISTS (SELECT FROM task_results r WHERE r.task_id = t.task_id)
    RETURNING t.task_id, t.request_id
),
attempt AS (DELETE FROM attempts a USING gone WHERE a.task_id = gone.task_id),
letter AS (DELETE FROM dead_letters l USING gone WHERE l.task_id = gone.task_id)
DELETE FROM decision_history d
USING gone
WHERE d.request_id IN (gone.request_id, gone.request_id || '/' || gone.task_id) AND d.task_id = gone.task_id;

-- name: redispatched
-- why: the new choice is news about the task and a decision of its own, named after the generation it made
WITH i AS MATERIALIZED (
    SELECT
        i.decision_id, COALESCE(i.selected_agent, ($2::text[])[1]) AS selected_agent, i.confidence,
        COALESCE(i.propensity, ($4::float8[])[1]) AS propensity,
        COALESCE(i.strategy, ($5::text[])[1]) AS strategy,
        COALESCE(i.policy_version, ($6::text[])[1]) AS policy_version,
        COALESCE(i.explored, ($7::bool[])[1]) AS explored, i.reasoning, i.context_data, i.system_state,
        i.decided_at, i.features, i.embedding, i.state_sequence, i.task_type, i.task_id
    FROM unnest(
        $1::text[], $2::text[], $3::float8[], $4::float8[], $5::text[], $6::text[], $7::bool[], $8::text[],
        $9::text[], $10::text[], $11::float8[], $12::text[], $13::text[], $14::bigint[], $15::text[], $16::text[]
    ) AS i (
        decision_id, selected_agent, confidence, propensity, strategy, policy_version, explored, reasoning,
        context_data, system_state, decided_at, features, embedding, state_sequence, task_type, task_id
    )
),
moved AS (
    UPDATE tasks t
    SET selected_agent = i.selected_agent, updated_at = to_timestamp(i.decided_at)
    FROM i
    WHERE t.task_id = i.task_id AND COALESCE(t.status, '') IN ('queued', 'running', 'retrying')
    RETURNING t.task_id
)
INSERT INTO decision_history (
    request_id, task_id, generation, task_type, selected_agent, confidence, propensity, strategy, policy_version,
    explored, reasoning, context_data, system_state, created_at, features, embedding, state_sequence
)
SELECT
    CASE
        WHEN i.decision_id <> t.request_id THEN i.decision_id
        -- The first choice for a planned task is the one its request is known by.
        WHEN t.generation > 1 THEN t.request_id || '/' || t.generation
        WHEN EXISTS (SELECT FROM decision_history d WHERE d.request_id = t.request_id AND d.task_id <> t.task_id)
            THEN t.request_id || '/' || t.task_id
        ELSE t.request_id
    END,
    i.task_id, t.generation, i.task_type, i.selected_agent, i.confidence, i.propensity, i.strategy, i.policy_version,
    i.explored, i.reasoning, i.context_data::jsonb, i.system_state::jsonb, to_timestamp(i.decided_at),
    i.features::real[], i.embedding::real[], i.state_sequence
FROM i
JOIN tasks t ON t.task_id = i.task_id
ON CONFLICT (request_id) DO NOTHING;
