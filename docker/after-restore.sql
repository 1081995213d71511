-- Prefect's database after a restore: nothing runs, whatever it says. The runs that were going on
-- while the backup was made are removed, and the places that they held are free again; the leases
-- of these places are files of the server's volume, not of this database, and may be gone with it.
DELETE FROM flow_run WHERE state_type IN ('PENDING', 'RUNNING', 'CANCELLING');
UPDATE concurrency_limit_v2 SET active_slots = 0;
