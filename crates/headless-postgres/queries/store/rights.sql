-- What this user lacks of what a service does in the schema, each with the statement that grants it.
with here as (
    select n.oid, n.nspname, quote_ident(n.nspname) as named, quote_ident(current_user) as whom
    from pg_namespace n
    where n.nspname = '{schema}'
),
lacking as (
    select 1 as rank, format('use of schema %s', nspname) as what,
        format('grant usage on schema %s to %s', named, whom) as remedy
    from here
    where not has_schema_privilege(oid, 'usage')
    union all
    select 2, format('%s of table %s', right_name, c.relname),
        format('grant select, insert, update, delete on all tables in schema %s to %s', named, whom)
    from here
    join pg_class c on c.relnamespace = here.oid and c.relkind in ('r', 'p')
    cross join unnest(array['select', 'insert', 'update', 'delete']) as right_name
    where not has_table_privilege(c.oid, right_name)
    union all
    select 3, format('use of sequence %s', c.relname),
        format('grant usage, select on all sequences in schema %s to %s', named, whom)
    from here
    join pg_class c on c.relnamespace = here.oid
    -- Which of two conditions is looked at first is otherwise the planner's to choose, and of a table this is an error.
    where case when c.relkind = 'S' then not has_sequence_privilege(c.oid, 'usage') else false end
    union all
    select 4, format('execution of function %s', p.proname),
        format('grant execute on all functions in schema %s to %s', named, whom)
    from here
    join pg_proc p on p.pronamespace = here.oid
    -- For those who publish from SQL and do nothing else, and for who is granted it by name.
    where p.proname <> 'publish_bytes' and not has_function_privilege(p.oid, 'execute')
)
select (array_agg(what order by rank, what))[1] as first, count(*)::int as missing,
    array_agg(distinct remedy) as remedies,
    coalesce((select has_schema_privilege(oid, 'create') from here), has_database_privilege(current_database(), 'create'))
        as may_create,
    coalesce((select has_schema_privilege(oid, 'usage') from here), true) as may_look
from lacking
