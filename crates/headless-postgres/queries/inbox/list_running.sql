select i.grp, i.id, i.topic, i.state, i.rounds, i.failures::text as failures, i.owner,
    {schema}.inbox_due_in(i) as due_in
from {schema}.inbox i
where (i.grp, i.id) > ($1, $2)
    and i.state = 0
    and ($3::text is null or i.grp = $3)
    and ($4::text is null or i.topic = $4)
    and ($5::smallint is null or i.state = $5)
order by i.grp, i.id
limit $6
