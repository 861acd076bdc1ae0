select count(*) from {schema}.handled
