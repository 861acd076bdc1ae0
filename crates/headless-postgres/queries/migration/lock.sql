-- Ends with the transaction, so that no pooler and no crash can keep it.
select pg_advisory_xact_lock($1)
