-- name: shared_secret
-- why: the first proposal is kept, whoever comes later is told it; no row comes back while another one commits the first
WITH made AS (
    INSERT INTO shared_secrets (name, value) VALUES ($1, $2)
    ON CONFLICT (name) DO NOTHING
    RETURNING value
)
SELECT value FROM made
UNION ALL
SELECT value FROM shared_secrets WHERE name = $1;
