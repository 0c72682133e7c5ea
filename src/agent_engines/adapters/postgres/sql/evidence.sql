-- name: evidence_rows
-- why: a fault run compares what clients were told with every task and every end there is: all of them ($1 null), or those
-- of one run: its nonces begin with $1, or its clients were given their ids ($2)
SELECT
    COALESCE(t.task_id, r.task_id) AS task_id,
    COALESCE(t.metadata->>'nonce', 'task-' || (r.result->>'n'), r.request_id) AS nonce,
    t.task_id IS NOT NULL AS submitted, t.idempotency_key, COALESCE(t.generation, r.generation) AS generation,
    COALESCE(t.max_attempts, 3) AS max_attempts, r.status, r.generation AS end_generation, r.result, r.error_type,
    r.delivery, r.attempt, extract(epoch FROM t.deadline)::float8 AS deadline,
    ARRAY(SELECT l.key::int FROM jsonb_object_keys(t.legs) AS l (key) ORDER BY 1) AS legs
FROM tasks t FULL JOIN task_results r USING (task_id)
WHERE $1::text IS NULL OR starts_with(t.metadata->>'nonce', $1) OR COALESCE(t.task_id, r.task_id) = ANY($2::text[]);

-- name: evidence_ended
-- why: a fault run waits until everything it was promised has ended; two rows for one task would show here
SELECT count(*) AS ended, count(*) - count(DISTINCT task_id) AS doubles FROM task_results WHERE task_id = ANY($1);

-- name: evidence_version
-- why: a report says what it was made on
SELECT current_setting('server_version') AS version;

-- name: evidence_durability
-- why: a measured speed is worth nothing without what a commit was worth; a standby counts only where one is named
SELECT name, setting FROM pg_settings
WHERE name IN ('fsync', 'synchronous_commit', 'full_page_writes', 'synchronous_standby_names') AND setting <> ''
ORDER BY name;

-- name: evidence_fingerprints
-- why: a terminal row that is written again has another version, even when it says the same
SELECT task_id, xmin::text || ' ' || md5(r::text) AS content FROM task_results r WHERE task_id = ANY($1)
