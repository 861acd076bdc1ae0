select {schema}.node_leave($1, $2)
