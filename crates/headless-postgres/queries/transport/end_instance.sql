select {schema}.instance_end($1)
