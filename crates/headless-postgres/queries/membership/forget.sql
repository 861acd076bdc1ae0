with old as (
    select n.incarnation from {schema}.node n
    where n.ended_at <= clock_timestamp() - $1 * interval '1 microsecond'
    order by n.incarnation limit $2 for update skip locked
), gone as (
    delete from {schema}.node n using old where n.incarnation = old.incarnation returning 1
)
select count(*) from gone
