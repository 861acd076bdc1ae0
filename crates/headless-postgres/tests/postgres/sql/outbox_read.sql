-- How many rows this transaction has read through an index.
select coalesce(sum(idx_tup_fetch), 0)::bigint as rows from pg_stat_xact_all_tables
where schemaname = '{schema}' and relname = 'outbox'
