insert into {schema}.effects (consumer, line, key) values ($1, $2, $3)
