-- name: tenant_put
-- why: a tenant's limits, whole
INSERT INTO tenants (name, cost, tokens, period_seconds, weight, updated_at)
VALUES ($1, $2, $3, $4, $5, to_timestamp($6))
ON CONFLICT (name) DO UPDATE
SET
    cost = EXCLUDED.cost, tokens = EXCLUDED.tokens, period_seconds = EXCLUDED.period_seconds, weight = EXCLUDED.weight,
    updated_at = EXCLUDED.updated_at;

-- name: tenant_remove
-- why: its limits go, what it spent stays
DELETE FROM tenants WHERE name = $1 RETURNING name;

-- name: tenants
-- why: limits with what was spent in the present period, which begins at a whole multiple since 1970
SELECT
    t.name, t.cost, t.tokens, t.period_seconds, t.weight, COALESCE(s.cost, 0) AS spent_cost,
    COALESCE(s.tokens, 0) AS spent_tokens
FROM tenants t
LEFT JOIN LATERAL (
    SELECT sum(p.cost) AS cost, sum(p.tokens)::bigint AS tokens
    FROM tenant_spending p
    WHERE p.tenant = t.name AND p.hour >= to_timestamp(floor($1::float8 / t.period_seconds) * t.period_seconds)
) s ON true
ORDER BY t.name;

-- name: tenant_spent
-- why: the same for a tenant without limits
SELECT COALESCE(sum(p.cost), 0) AS spent_cost, COALESCE(sum(p.tokens), 0)::bigint AS spent_tokens
FROM tenant_spending p
WHERE p.tenant = $1 AND p.hour >= to_timestamp($2);

-- name: task_spent
-- why: what its attempts used up so far, since it was driven again if it was
SELECT COALESCE(sum(a.cost), 0) AS spent_cost, COALESCE(sum(a.tokens), 0)::bigint AS spent_tokens
FROM attempts a
WHERE a.task_id = $1
    AND a.status = 'retrying'
    AND a.generation > COALESCE(
        (
            SELECT max(e.generation)
            FROM attempts e
            WHERE e.task_id = $1 AND e.status NOT IN ('running', 'retrying')
        ),
        0
    );

-- name: spending_add
-- why: in the transaction that keeps the reports, so that no copy is counted twice
INSERT INTO tenant_spending (tenant, hour, cost, tokens)
SELECT
    i.tenant, CASE WHEN i.hour > 0 THEN to_timestamp(i.hour) ELSE date_trunc('hour', now(), 'UTC') END, i.cost, i.tokens
FROM unnest($1::text[], $2::float8[], $3::float8[], $4::bigint[]) AS i (tenant, hour, cost, tokens)
ON CONFLICT (tenant, hour) DO UPDATE
SET cost = tenant_spending.cost + EXCLUDED.cost, tokens = tenant_spending.tokens + EXCLUDED.tokens;

-- name: purge_spending
-- why: the longest period a budget may have is 31 days
DELETE FROM tenant_spending WHERE hour < to_timestamp($1) - interval '31 days' RETURNING tenant;
