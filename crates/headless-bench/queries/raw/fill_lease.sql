insert into raw_lease (id, topic, key, occurred_at, content_type, headers, payload)
select gen_random_uuid(), 'bench', 'key-' || n % 10000, clock_timestamp(), null, '{"hl-type":"bench"}', $2
from generate_series(1, $1) n
