begin;
select from {schema}.outbox_batch for update
