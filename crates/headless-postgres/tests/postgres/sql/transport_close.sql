begin;
select {schema}.transport_maintain('0', '0', 1)
