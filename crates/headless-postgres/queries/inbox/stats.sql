select i.state, count(*) as rows
from {schema}.inbox i
where $1::text is null or i.grp = $1
group by i.state
