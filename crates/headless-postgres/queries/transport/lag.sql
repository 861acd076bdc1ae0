select {schema}.group_lag($1) as lag
