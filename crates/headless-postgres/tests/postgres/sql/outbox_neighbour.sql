-- A key in the same part as the one that there are many rows of.
select 'n' || n as key from generate_series(1, 1000) n
where {schema}.outbox_place({schema}.key_hash('orders', 'n' || n), 0::smallint)
    = {schema}.outbox_place({schema}.key_hash('orders', 'hot'), 0::smallint)
limit 1
