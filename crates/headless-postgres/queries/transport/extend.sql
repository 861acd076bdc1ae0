select part, epoch, place
from {schema}.member_extend($1, $2, $3, $4, $5::text[]::int8multirange[], $6 * interval '1 microsecond')
