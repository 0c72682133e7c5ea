-- name: purge_tasks
-- why: in small commits, so that it never stands in the way of a recorder
-- What is being run again (`reopen` deletes its old end) is passed over: deleted with that end, the task would be dispatched
-- without a row, and its next retry would never become due.
WITH old AS (
    SELECT r.task_id
    FROM task_results r
    WHERE r.created_at < to_timestamp($1)
    LIMIT $2
    FOR UPDATE SKIP LOCKED
),
attempt AS (DELETE FROM attempts a USING old WHERE a.task_id = old.task_id),
letter AS (DELETE FROM dead_letters d USING old WHERE d.task_id = old.task_id),
judged AS (DELETE FROM task_feedback f USING old WHERE f.task_id = old.task_id),
task AS (DELETE FROM tasks t USING old WHERE t.task_id = old.task_id RETURNING t.task_id),
result AS (DELETE FROM task_results r USING old WHERE r.task_id = old.task_id RETURNING r.task_id)
SELECT (SELECT count(*) FROM task) AS tasks, (SELECT count(*) FROM result) AS results;

-- name: purge_decisions
-- why: decisions of tasks still open stay, as their outcome is yet to come
DELETE FROM decision_history
WHERE id IN (
    SELECT d.id
    FROM decision_history d
    WHERE d.created_at < to_timestamp($1)
        AND NOT EXISTS (SELECT FROM tasks t WHERE t.task_id = d.task_id)
    ORDER BY d.created_at
    LIMIT $2
)
RETURNING id;
