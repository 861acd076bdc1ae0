select * from {schema}.node_bury($1)
