select answer, grp, topic, part, number, ordered
from {schema}.member_join($1, $2, $3, $4, $5, $6 * interval '1 microsecond')
