begin;
select from {schema}.topic_part for update
