select format('%s %s', relkind, relname) as object from pg_class
where relnamespace = '{schema}'::regnamespace
union all
select format('function %s(%s)', proname, replace(pg_get_function_arguments(oid), '{schema}.', '')) from pg_proc
where pronamespace = '{schema}'::regnamespace
union all
select format('type %s', typname) from pg_type where typnamespace = '{schema}'::regnamespace
order by 1
