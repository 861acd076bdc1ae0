with closed as (
    update {schema}.dead_letter d
    set discarded_by = $2, discarded_at = clock_timestamp()
    where d.dead_letter_id = any($1) and d.redriven_at is null and d.discarded_at is null
    returning d.n, d.discarded_at
)
insert into {schema}.dead_letter_change (letter, at, by, kind)
select c.n, c.discarded_at, $2, 2 from closed c
