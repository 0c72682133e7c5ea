-- name: session
-- why: every session has limits, and plans made once: planning the large statements costs more than running them
-- A plan made while the tables are empty scans them, and would go on when they are large. All our queries go by keys, so
-- scans and the joins that need them are switched off; what does look at everything asks for that (plan_afresh).
SELECT
    set_config('application_name', 'agent-engines', false),
    set_config('statement_timeout', $1, false),
    set_config('lock_timeout', $2, false),
    set_config('idle_in_transaction_session_timeout', $3, false),
    set_config('plan_cache_mode', 'force_generic_plan', false),
    set_config('enable_seqscan', 'off', false),
    set_config('enable_hashjoin', 'off', false),
    set_config('enable_mergejoin', 'off', false),
    set_config('jit', 'off', false);

-- name: plan_afresh
-- why: for the rest of a transaction, plans by what is in the tables now
SELECT
    set_config('plan_cache_mode', 'force_custom_plan', true),
    set_config('enable_seqscan', 'on', true),
    set_config('enable_hashjoin', 'on', true),
    set_config('enable_mergejoin', 'on', true);

-- name: schema_version
-- why: NULL when nothing was ever migrated here
SELECT to_regclass('alembic_version') IS NOT NULL AS migrated;

-- name: schema_revision
-- why: the revision this database is at
SELECT version_num FROM alembic_version;

-- name: migration_lock
-- why: one migration at a time; the key is the SHA-256 digest of "agent-engines-migrations", first 63 bits
SELECT pg_advisory_xact_lock(2155922087795233546);
