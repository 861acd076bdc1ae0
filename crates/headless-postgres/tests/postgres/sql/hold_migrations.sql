-- Reading goes on, writing waits.
lock table {schema}.migration in share mode
