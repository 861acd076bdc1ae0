select answer, before, grp, held
from {schema}.transport_repartition($1, $2, $3)
