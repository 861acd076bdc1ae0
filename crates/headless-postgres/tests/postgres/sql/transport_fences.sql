-- As in a copy of the schema in a server that has not had as many transactions.
update {schema}.topic_segment set fence = '4611686018427387904' where closed_at is not null;
select id from {schema}.topic_segment where fence is not null
