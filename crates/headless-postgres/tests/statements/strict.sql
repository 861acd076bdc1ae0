select set_config('search_path', 'pg_catalog', false), set_config('lock_timeout', '20s', false)
