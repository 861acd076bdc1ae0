-- As a renewal of the first row of each batch does.
begin;
select r.* from {schema}.outbox_batch b
join {schema}.outbox o on o.part = b.part and o.seq = b.seqs[1]
cross join {schema}.outbox_renew(b.owner, array[o.id], array[b.epoch], 600000000) r
