-- In a transaction of its own, and without waiting for the disk: a hint that a crash loses is found by the poll, while
-- the server lets one transaction that notifies commit at a time.
select set_config('synchronous_commit', 'off', true), pg_notify('headless_{schema}', $1)
