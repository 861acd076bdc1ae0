select c.n, c.at, c.by, c.kind, c.payload
from {schema}.dead_letter_change c
where c.letter = (select d.n from {schema}.dead_letter d where d.dead_letter_id = $1) and c.n > $2
order by c.n
limit $3
