-- name: inspect_settings
-- why: what holds for a session of this role in this database, and who said so
SELECT name, setting, source FROM pg_settings WHERE name = ANY($1::text[]);

-- name: inspect_overrides
-- why: roles and databases with settings of their own; engines may log in as another role than the one that checks
SELECT coalesce(r.rolname, '') AS role, coalesce(d.datname, '') AS database, s.setting
FROM pg_db_role_setting t
CROSS JOIN LATERAL unnest(t.setconfig) AS s (setting)
LEFT JOIN pg_roles r ON r.oid = t.setrole
LEFT JOIN pg_database d ON d.oid = t.setdatabase
WHERE t.setdatabase = 0 OR d.datname = current_database()
ORDER BY 1, 2, 3
LIMIT 200;

-- name: inspect_role
-- why: what whoever takes over an engine could do
SELECT rolname, rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls
FROM pg_roles WHERE rolname = current_user;

-- name: inspect_session
-- why: how this very connection travels
SELECT
    coalesce(s.ssl, false) AS tls,
    s.version AS tls_version,
    inet_client_addr() IS NULL OR host(inet_client_addr()) IN ('127.0.0.1', '::1') AS local,
    pg_is_in_recovery() AS in_recovery
FROM (SELECT 1) AS one
LEFT JOIN pg_stat_ssl s ON s.pid = pg_backend_pid();

-- name: inspect_clock
-- why: seconds since 1970 by the server's clock
SELECT extract(epoch FROM clock_timestamp())::float8 AS now;

-- name: inspect_transaction_ids
-- why: the oldest database of the cluster decides when the server stops
SELECT max(age(datfrozenxid))::int8 AS age FROM pg_database;

-- name: inspect_standbys
-- why: who has a second copy; without pg_read_all_stats the list is not shown, which is not the same as empty
SELECT count(*)::int AS standbys, pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS allowed
FROM pg_stat_replication;

-- name: inspect_oldest_transaction
-- why: seconds; of sessions we may look at
SELECT
    coalesce(extract(epoch FROM max(clock_timestamp() - xact_start)), 0)::float8 AS seconds,
    pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS allowed
FROM pg_stat_activity
WHERE backend_type = 'client backend' AND pid <> pg_backend_pid();

-- name: inspect_hba
-- why: who may log in with what proof; superusers only
SELECT line_number, type, array_to_string(database, ',') AS database, array_to_string(user_name, ',') AS user_name,
       address, auth_method, error
FROM pg_hba_file_rules
ORDER BY line_number
LIMIT 200;

-- name: inspect_activity
-- why: what everybody does; the text of statements is left out, it may hold data
SELECT pid, usename::text, application_name, client_addr::text, backend_type, state, wait_event_type, wait_event,
       extract(epoch FROM clock_timestamp() - xact_start)::float8 AS transaction_seconds,
       extract(epoch FROM clock_timestamp() - query_start)::float8 AS statement_seconds,
       pg_blocking_pids(pid) AS blocked_by
FROM pg_stat_activity
ORDER BY xact_start NULLS LAST
LIMIT 500;

-- name: inspect_locks
-- why: who waits for what, and who has it
SELECT l.pid, l.locktype, l.mode, l.granted, l.relation::regclass::text AS relation,
       extract(epoch FROM clock_timestamp() - l.waitstart)::float8 AS waiting_seconds
FROM pg_locks l
WHERE l.database IS NULL OR l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
ORDER BY l.granted, l.pid
LIMIT 500;

-- name: inspect_tables
-- why: what is large, what is dead, and when it was cleaned
SELECT relname::text AS name, pg_total_relation_size(relid) AS bytes, pg_relation_size(relid) AS heap_bytes, n_live_tup AS live_rows,
       n_dead_tup AS dead_rows, seq_scan AS scans, idx_scan AS index_scans, last_autovacuum::text, last_autoanalyze::text
FROM pg_stat_user_tables
ORDER BY 2 DESC
LIMIT 200;

-- name: inspect_all_settings
-- why: every setting that is not the default
SELECT name, setting, unit, source, pending_restart FROM pg_settings
WHERE source <> 'default' AND name NOT LIKE '%password%' AND name NOT IN ('primary_conninfo', 'ssl_passphrase_command', 'archive_command', 'restore_command')
ORDER BY name;
