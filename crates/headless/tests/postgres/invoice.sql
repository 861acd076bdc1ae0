insert into {schema}.invoices (name, ordered) select $1, name from {schema}.orders where name = $1
