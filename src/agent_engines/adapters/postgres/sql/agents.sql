-- name: register
-- why: what an agent says about itself is replaced, what an operator said about it (status) stays
INSERT INTO agents (name, agent_type, capabilities, metadata, created_at, updated_at, last_seen)
SELECT i.name, i.agent_type, i.capabilities::jsonb, i.metadata::jsonb, to_timestamp($5), to_timestamp($5), to_timestamp($5)
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS i (name, agent_type, capabilities, metadata)
ON CONFLICT (name) DO UPDATE
SET
    agent_type = EXCLUDED.agent_type, capabilities = EXCLUDED.capabilities, metadata = EXCLUDED.metadata,
    updated_at = EXCLUDED.updated_at, last_seen = GREATEST(agents.last_seen, EXCLUDED.last_seen)
RETURNING name, status;

-- name: seen
-- why: touches no index, so it costs one short row each
UPDATE agents SET last_seen = GREATEST(last_seen, to_timestamp($2)) WHERE name = ANY ($1::text[]);

-- name: set_status
-- why: an operator's word about an agent that was never heard is kept as well
INSERT INTO agents (name, status)
VALUES ($1, $2)
ON CONFLICT (name) DO UPDATE SET status = EXCLUDED.status, updated_at = now();

-- name: agents
-- why: a fleet has at most thousands of names
SELECT a.name, a.agent_type, a.status, a.capabilities, a.metadata, a.created_at, a.last_seen
FROM agents a
ORDER BY a.name
LIMIT 10000;
