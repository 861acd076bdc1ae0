select pid from pg_locks where relation = '{schema}.migration'::regclass and not granted
