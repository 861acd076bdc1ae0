begin;
select from {schema}.topic_segment for update
