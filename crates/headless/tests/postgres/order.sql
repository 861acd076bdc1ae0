insert into {schema}.orders (name) values ($1)
