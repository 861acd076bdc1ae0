begin;
select {schema}.node_register('00000000-0000-0000-0000-000000000001', 'orders', 'n1', 300000000, 600000000, '{}')
