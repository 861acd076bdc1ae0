select format(
        'select * from {schema}.%I(%s)', p.proname,
        (select string_agg(format('null::%s', format_type(t, null)), ', ' order by n)
         from unnest(p.proargtypes::oid[]) with ordinality as a(t, n))
    ) as call
from pg_proc p join pg_language l on l.oid = p.prolang
where p.pronamespace = '{schema}'::regnamespace and p.prokind = 'f' and l.lanname in ('plpgsql', 'sql')
    and p.prorettype <> 'trigger'::regtype
order by p.proname
