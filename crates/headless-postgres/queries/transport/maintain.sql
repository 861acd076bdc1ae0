select {schema}.transport_maintain($1 * interval '1 microsecond', $2 * interval '1 microsecond', $3)
