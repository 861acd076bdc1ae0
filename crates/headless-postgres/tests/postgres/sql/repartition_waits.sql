select pid from pg_stat_activity
where wait_event_type = 'Lock' and state = 'active' and query like '%{schema}.transport_repartition%'
    and pid <> pg_backend_pid()
