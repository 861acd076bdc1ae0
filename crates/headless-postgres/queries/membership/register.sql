select {schema}.node_register($1, $2, $3, $4, $5, $6)
