-- How many rows some transaction has locked or changed.
select count(*) as rows from {schema}.group_delivery where xmax <> 0 or member is not null
