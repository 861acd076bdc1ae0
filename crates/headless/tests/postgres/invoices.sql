select name from {schema}.invoices order by name
