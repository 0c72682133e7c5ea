-- name: redrive_begin
-- why: one at a time; nothing comes back while another one runs
INSERT INTO redrives (id, orders, state, matched, redriven, skipped, started_at, updated_at)
VALUES ($1, $2::text::jsonb, 'running', $3, 0, 0, to_timestamp($4), to_timestamp($4))
ON CONFLICT (state) WHERE state = 'running' DO UPDATE
SET updated_at = redrives.updated_at
WHERE redrives.id = EXCLUDED.id
RETURNING id;

-- name: redrive_latest
-- why: the one that runs, or ran last
SELECT id, orders, state, matched, redriven, skipped, started_at, updated_at, last_error
FROM redrives
ORDER BY started_at DESC
LIMIT 1;

-- name: redrive_claim
-- why: one router works on it; when it falls silent, another one goes on
UPDATE redrives
SET claimed_by = $1, claimed_until = to_timestamp($3)
WHERE state = 'running' AND (claimed_by = $1 OR claimed_until IS NULL OR claimed_until <= to_timestamp($2))
RETURNING id, orders, state, matched, redriven, skipped, started_at, updated_at, last_error;

-- name: redrive_note
-- why: how far it got, for those who look and for whoever goes on with it
UPDATE redrives
SET redriven = $3, skipped = $4, updated_at = to_timestamp($5), last_error = $6, claimed_until = to_timestamp($7)
WHERE id = $1 AND claimed_by = $2 AND state = 'running'
RETURNING id;

-- name: redrive_end
-- why: done, or stopped by somebody; the first word counts
UPDATE redrives
SET state = $2, updated_at = to_timestamp($3), claimed_by = NULL, claimed_until = NULL
WHERE id = $1 AND state = 'running'
RETURNING id, orders, state, matched, redriven, skipped, started_at, updated_at, last_error;

-- name: letters
-- why: newest first along dead_letters_by_time, by what an operator looks for
SELECT d.task_id, d.task_type, d.agent, d.reason, d.attempts, d.created_at, d.redriven_at
FROM dead_letters d
WHERE (d.created_at, d.task_id) < (to_timestamp(0) + $1::bigint * interval '1 microsecond', $2::text)
    AND d.created_at >= to_timestamp($3)
    AND d.created_at <= to_timestamp($4)
    AND ($5::text IS NULL OR d.task_type = $5)
    AND ($6::text IS NULL OR d.agent = $6)
    AND ($7::text IS NULL OR strpos(lower(d.reason), lower($7)) > 0)
    AND (NOT $8::bool OR d.redriven_at IS NULL)
ORDER BY d.created_at DESC, d.task_id DESC
LIMIT $9;

-- name: count_letters
-- why: how much a redrive has before it
SELECT count(*) AS letters
FROM dead_letters d
WHERE d.created_at >= to_timestamp($1)
    AND d.created_at <= to_timestamp($2)
    AND ($3::text IS NULL OR d.task_type = $3)
    AND ($4::text IS NULL OR d.agent = $4)
    AND ($5::text IS NULL OR strpos(lower(d.reason), lower($5)) > 0)
    AND (NOT $6::bool OR d.redriven_at IS NULL);
