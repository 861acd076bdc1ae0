select i.grp, i.id, i.topic, i.state, i.rounds, i.failures::text as failures, i.owner,
    {schema}.inbox_due_in(i) as due_in
from {schema}.inbox i
where i.grp = $1 and i.id = $2
