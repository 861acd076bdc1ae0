update raw_queue r
set owner = $1, lease_until = clock_timestamp() + interval '30 seconds'
where seq in (
    select seq from raw_queue
    where lease_until is null or lease_until < clock_timestamp()
    order by seq
    limit $2
    for update skip locked
)
returning seq, id, topic, key, occurred_at, content_type, headers, payload
