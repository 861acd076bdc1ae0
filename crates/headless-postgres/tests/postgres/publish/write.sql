insert into {schema}.users_table (text) values ($1)
