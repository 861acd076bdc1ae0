with released as (
    delete from {schema}.outbox_batch where owner = $1 returning cardinality(seqs) as rows
)
select coalesce(sum(rows), 0)::bigint from released
