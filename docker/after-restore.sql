-- Prefect's database after a restore: nothing runs, whatever it says. The runs that were going on
-- while the backup was made are removed, and the places that they held are free again; the leases
-- of these places were in the memory of a server that is gone, so nobody else would free them.
DELETE FROM flow_run WHERE state_type IN ('PENDING', 'RUNNING', 'CANCELLING');
UPDATE concurrency_limit_v2 SET active_slots = 0;
