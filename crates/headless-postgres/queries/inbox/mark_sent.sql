-- Sent together with BEGIN, which takes no parameters: the client puts in each array's literal as hexadecimal digits, and a
-- number.
select {schema}.inbox_mark(
    nullif(convert_from(decode('{groups}', 'hex'), 'UTF8'), '')::text[],
    nullif(convert_from(decode('{ids}', 'hex'), 'UTF8'), '')::uuid[],
    nullif(convert_from(decode('{topics}', 'hex'), 'UTF8'), '')::text[],
    nullif(convert_from(decode('{key_hashes}', 'hex'), 'UTF8'), '')::bigint[],
    nullif(convert_from(decode('{idempotency_keys}', 'hex'), 'UTF8'), '')::text[],
    nullif(convert_from(decode('{owners}', 'hex'), 'UTF8'), '')::uuid[],
    nullif(convert_from(decode('{epochs}', 'hex'), 'UTF8'), '')::bigint[],
    2::smallint,
    ('{wait}'::text)::integer
)
