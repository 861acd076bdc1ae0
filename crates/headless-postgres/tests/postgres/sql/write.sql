create table {schema}.written ()
