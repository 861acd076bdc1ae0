select count(*) from {schema}.outbox_claim(gen_random_uuid(), 1, 600000000, true, '{}', '{}')
