select coalesce(string_agg(a.query || ' ' || a.state, '; '), '') from pg_stat_activity a
where a.application_name = current_setting('application_name') and a.pid <> pg_backend_pid()
