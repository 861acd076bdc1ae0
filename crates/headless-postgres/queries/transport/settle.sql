select part, epoch, place
from {schema}.member_settle($1, $2, $3, $4, $5::text[]::int8multirange[], $6, $7, $8, $9)
