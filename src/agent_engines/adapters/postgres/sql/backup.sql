-- name: export_snapshot
-- why: pg_dump sees exactly what we count
SELECT pg_export_snapshot() AS snapshot, current_setting('server_version') AS server;

-- name: server_version
-- why: client programs must not be older
SELECT current_setting('server_version') AS server;

-- name: countable_tables
-- why: the statement that counts each table, quoted by the server
SELECT c.relname AS name, format('SELECT count(*) FROM %I.%I', n.nspname, c.relname) AS counting
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'p') AND NOT c.relispartition
ORDER BY c.relname;

-- name: count_open
-- why: what a restored system still has to end; a row in task_results is what ends a task
SELECT count(*) FROM tasks t WHERE NOT EXISTS (SELECT FROM task_results r WHERE r.task_id = t.task_id);

-- name: held
-- why: what a restore would replace and nobody could bring back
SELECT
    (SELECT count(*) FROM (SELECT FROM tasks LIMIT 1) s) > 0 AS tasks,
    (SELECT count(*) FROM (SELECT FROM task_results LIMIT 1) s) > 0 AS results,
    (SELECT count(*) FROM (SELECT FROM decision_history LIMIT 1) s) > 0 AS decisions;

-- name: agent_modes
-- why: a restore names them, and checks that it brought them back
SELECT name, status FROM agents WHERE status <> 'healthy' ORDER BY name;

-- name: engine_sessions
-- why: engines would write into tables that are being replaced
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = 'agent-engines';

-- name: foreign_tables
-- why: tables of the same names that are not ours are never touched
SELECT c.relname AS name
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = current_schema() AND c.relname = ANY ($1::text[]) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
ORDER BY c.relname;

-- name: check_restored
-- why: inside the restoring transaction: rows that do not agree with the manifest are never committed
DO $check$
DECLARE
    expected record;
    found bigint;
    modes jsonb;
BEGIN
    FOR expected IN
        SELECT t.key AS name, t.value::bigint AS count
        FROM json_each_text(current_setting('agent_engines.tables')::json) t
    LOOP
        EXECUTE format('SELECT count(*) FROM %I', expected.name) INTO found;
        IF found <> expected.count THEN
            RAISE EXCEPTION 'table % has % rows where the manifest says %', expected.name, found, expected.count;
        END IF;
    END LOOP;
    SELECT COALESCE(jsonb_object_agg(a.name, a.status), '{}') INTO modes FROM agents a WHERE a.status <> 'healthy';
    -- Older backups do not tell: nothing differs from NULL.
    IF modes <> current_setting('agent_engines.modes', true)::jsonb THEN
        RAISE EXCEPTION 'operators said % about agents where the manifest says %', modes,
            current_setting('agent_engines.modes', true);
    END IF;
END
$check$;

-- name: forget_news
-- why: the bus of a restored ledger is empty: what was on it has to be sent again at once, not after the longest timeout
-- Ten years before its submission: older than any patience, and still in order.
UPDATE tasks t
SET updated_at = t.submitted_at - interval '10 years'
WHERE t.status IN ('queued', 'running')
    AND t.next_run_at IS NULL
    AND NOT EXISTS (SELECT FROM task_results r WHERE r.task_id = t.task_id);
