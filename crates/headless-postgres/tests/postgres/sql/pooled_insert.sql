insert into {schema}.pooled (number, text) values ($1, $2)
