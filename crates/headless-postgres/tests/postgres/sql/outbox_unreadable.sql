insert into {schema}.outbox (part, seq, due, occurred_at, id, topic, key, headers, payload) values
    (16, nextval('{schema}.outbox_seq'), null, clock_timestamp(), gen_random_uuid(), 'orders', null, 'not json', 'a'),
    (-1, nextval('{schema}.outbox_seq'), clock_timestamp(), clock_timestamp(), gen_random_uuid(), 'orders', null, 'nor this', 'b'),
    (16, nextval('{schema}.outbox_seq'), null, clock_timestamp(), gen_random_uuid(), 'Not a topic', null, null, 'c'),
    (16, nextval('{schema}.outbox_seq'), null, clock_timestamp(), gen_random_uuid(), 'orders', null, '{"hl-priority": "many"}', 'd')
