select (select count(*) from {schema}.outbox), (select count(*) from {schema}.dead_letter),
    (select count(*) from {schema}.parked_message)
