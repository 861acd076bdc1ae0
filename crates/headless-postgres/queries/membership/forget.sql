with old as (
    -- The clock by itself, which goes on within a statement, would keep the index from being used.
    select n.incarnation from {schema}.node n
    where n.ended_at <= (select clock_timestamp() - $1 * interval '1 microsecond')
    order by n.ended_at limit $2 for update skip locked
), gone as (
    delete from {schema}.node n using old where n.incarnation = old.incarnation returning 1
)
select count(*) from gone
