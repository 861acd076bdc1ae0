select
    (select count(*) from {schema}.published) as published,
    (select count(*) from {schema}.outbox) as waiting,
    (select count(*) from {schema}.handled) as handled
