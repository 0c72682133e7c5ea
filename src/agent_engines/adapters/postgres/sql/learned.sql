-- name: save_learned
-- why: a snapshot of what the routers have learned; saved again it is the same
INSERT INTO learned_snapshots (name, sequence, digest, state, created_at)
VALUES ($1, $2, $3, $4, to_timestamp($5::float8))
ON CONFLICT (name, sequence) DO UPDATE
SET digest = EXCLUDED.digest, state = EXCLUDED.state, created_at = EXCLUDED.created_at;

-- name: forget_learned
-- why: the newest few are enough: one for the start, some in case it is damaged
DELETE FROM learned_snapshots s
WHERE s.name = $1
    AND s.sequence NOT IN (
        SELECT k.sequence FROM learned_snapshots k WHERE k.name = $1 ORDER BY k.sequence DESC LIMIT $2::int
    );

-- name: newest_learned
-- why: what a router starts from
SELECT s.name, s.sequence, s.digest, s.state
FROM learned_snapshots s
WHERE starts_with(s.name, $1)
ORDER BY s.created_at DESC, s.sequence DESC
LIMIT 1;
