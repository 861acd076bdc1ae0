select {schema}.group_remove($1)
