begin;
select {schema}.publish('notes.noted', '{"text": "x"}') from generate_series(1, 3);
commit;
