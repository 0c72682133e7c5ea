-- name: hedge
-- why: a first dispatch that takes long gets a second leg and its decision in one commit, while nothing else happened to it
-- The generation is raised before the second leg is published, so that no other dispatch can have its name.
WITH i AS MATERIALIZED (
    SELECT
        i.decision_id, COALESCE(i.selected_agent, ($2::text[])[1]) AS selected_agent, i.confidence,
        COALESCE(i.propensity, ($4::float8[])[1]) AS propensity,
        COALESCE(i.strategy, ($5::text[])[1]) AS strategy,
        COALESCE(i.policy_version, ($6::text[])[1]) AS policy_version,
        COALESCE(i.explored, ($7::bool[])[1]) AS explored, i.reasoning, i.context_data, i.system_state,
        i.decided_at, i.features, i.embedding, i.state_sequence, i.task_type, i.task_id, i.first_agent
    FROM unnest(
        $1::text[], $2::text[], $3::float8[], $4::float8[], $5::text[], $6::text[], $7::bool[], $8::text[],
        $9::text[], $10::text[], $11::float8[], $12::text[], $13::text[], $14::bigint[], $15::text[], $16::text[],
        $17::text[]
    ) AS i (
        decision_id, selected_agent, confidence, propensity, strategy, policy_version, explored, reasoning,
        context_data, system_state, decided_at, features, embedding, state_sequence, task_type, task_id, first_agent
    )
),
hedged AS (
    UPDATE tasks t
    SET
        generation = t.generation + 1,
        legs = jsonb_build_object(t.generation::text, i.first_agent, (t.generation + 1)::text, i.selected_agent),
        selected_agent = i.selected_agent,
        updated_at = GREATEST(t.updated_at, to_timestamp(i.decided_at))
    FROM i
    WHERE t.task_id = i.task_id
        AND t.generation = 1
        AND t.legs IS NULL
        AND COALESCE(t.status, '') IN ('queued', 'running')
        AND t.next_run_at IS NULL
        AND t.cancel_requested_at IS NULL
        AND NOT EXISTS (SELECT FROM task_results r WHERE r.task_id = t.task_id)
    RETURNING
        t.task_id, t.request_id, t.task_type, t.payload, t.requirements, t.metadata, t.priority, t.timeout_seconds,
        t.deadline, t.idempotency_key, t.body_hash, t.max_attempts, t.submitted_at, t.origin, t.traceparent, t.hints, t.terms,
        t.status, t.generation, t.attempt, t.selected_agent
),
decided AS (
    INSERT INTO decision_history (
        request_id, task_id, generation, task_type, selected_agent, confidence, propensity, strategy, policy_version,
        explored, reasoning, context_data, system_state, created_at, features, embedding, state_sequence
    )
    SELECT
        i.decision_id, i.task_id, h.generation, i.task_type, i.selected_agent, i.confidence, i.propensity, i.strategy,
        i.policy_version, i.explored, i.reasoning, i.context_data::jsonb, i.system_state::jsonb,
        to_timestamp(i.decided_at), i.features::real[], i.embedding::real[], i.state_sequence
    FROM i
    JOIN hedged h ON h.task_id = i.task_id
    ON CONFLICT (request_id) DO NOTHING
)
SELECT
    task_id, request_id, task_type, payload, requirements, metadata, priority, timeout_seconds, deadline,
    idempotency_key, body_hash, max_attempts, submitted_at, origin, traceparent, hints, terms, status, generation, attempt,
    selected_agent
FROM hedged;

-- name: legs
-- why: whoever cancels a task must reach everybody who is at work on it
SELECT l.value AS agent
FROM tasks t, jsonb_each_text(t.legs) l
WHERE t.task_id = $1
ORDER BY l.key;
