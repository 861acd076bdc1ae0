select count(*) from pg_namespace where nspname like 'headless%'
