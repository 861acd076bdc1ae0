select (t.seq_tup_read + coalesce(t.idx_tup_fetch, 0)) as read
from pg_stat_xact_user_tables t where t.schemaname = '{schema}' and t.relname = 'node'
