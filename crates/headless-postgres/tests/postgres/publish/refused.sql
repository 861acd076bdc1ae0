-- topic is null
select {schema}.publish(null, 'x')
-- payload is null
select {schema}.publish('a', null::jsonb)
-- topic "" is refused
select {schema}.publish('', 'x')
-- topic "Orders" is refused
select {schema}.publish('Orders', 'x')
-- topic "a..b" is refused
select {schema}.publish('a..b', 'x')
-- topic ".a" is refused
select {schema}.publish('.a', 'x')
-- topic "a." is refused
select {schema}.publish('a.', 'x')
-- topic "-a" is refused
select {schema}.publish('-a', 'x')
-- topic "a\n" is refused
select {schema}.publish(e'a\n', 'x')
-- topic "ä" is refused
select {schema}.publish('ä', 'x')
-- topic "public\"; drop table x;--" is refused
select {schema}.publish('public"; drop table x;--', 'x')
-- is refused
select {schema}.publish(repeat('a', 91), 'x')
-- reserved for dead letters
select {schema}.publish('orders.dead', 'x')
-- partition key is empty
select {schema}.publish('a', 'x', '')
-- partition key is 514 bytes, the limit is 512
select {schema}.publish('a', 'x', repeat('é', 257))
-- partition key contains a control character
select {schema}.publish('a', 'x', e'a\u0085')
-- partition key contains a control character
select {schema}.publish('a', 'x', e'a\x7f')
-- partition key contains a control character
select {schema}.publish('a', 'x', e'a\r\nb')
-- message type is empty
select {schema}.publish('a', 'x', type => '')
-- message type is 257 bytes, the limit is 256
select {schema}.publish('a', 'x', type => repeat('a', 257))
-- headers must be a JSON object
select {schema}.publish('a', 'x', headers => '[]')
-- header name "hl-id" is reserved
select {schema}.publish('a', 'x', headers => '{"hl-id": "x"}')
-- header name "content-type" is reserved
select {schema}.publish('a', 'x', headers => '{"content-type": "x"}')
-- header name "traceparent" is reserved
select {schema}.publish('a', 'x', headers => '{"traceparent": "x"}')
-- header name "Upper" is refused
select {schema}.publish('a', 'x', headers => '{"Upper": "x"}')
-- header name "" is refused
select {schema}.publish('a', 'x', headers => '{"": "x"}')
-- header x must be a text
select {schema}.publish('a', 'x', headers => '{"x": 1}')
-- header x must be a text
select {schema}.publish('a', 'x', headers => '{"x": null}')
-- header x contains a control character
select {schema}.publish('a', 'x', headers => '{"x": "a\nb"}')
-- header x is 16385 bytes, the limit is 16384
select {schema}.publish('a', 'x', headers => jsonb_build_object('x', repeat('a', 16385)))
-- headers are 65, the limit is 64
select {schema}.publish('a', 'x', headers => (select jsonb_object_agg('h' || n, '') from generate_series(1, 65) n))
-- the limit is 65536
select {schema}.publish('a', 'x', headers => (select jsonb_object_agg('h' || n, repeat('a', 16000)) from generate_series(1, 5) n))
-- invalid byte sequence
select {schema}.publish('a', 'x', e'a\x00')
-- unsupported Unicode escape sequence
select {schema}.publish('a', '{"text": "\u0000"}'::jsonb)
