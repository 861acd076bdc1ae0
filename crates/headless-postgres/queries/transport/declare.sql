select topic, known, is_known
from {schema}.transport_declare($1, $2, $3, $4, $5, $6, $7, $8, $9 * interval '1 microsecond')
