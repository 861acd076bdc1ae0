select coalesce(array_agg(distinct owner::text), '{}') as holders from {schema}.outbox_batch
