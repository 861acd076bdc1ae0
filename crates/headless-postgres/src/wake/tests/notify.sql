select pg_notify($1, 'store')
