-- Many rows of one key.
select count({schema}.outbox_put(
    gen_random_uuid(), 'orders', 'hot', 0::smallint, clock_timestamp(), null, null, 'x'
)) from generate_series(1, 20000);
analyze {schema}.outbox
