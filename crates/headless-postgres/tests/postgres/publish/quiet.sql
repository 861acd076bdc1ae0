begin;
set local headless.wake = off;
select {schema}.publish('notes.noted', '{"text": "x"}');
commit;
select pg_notify('headless_{schema}', 'after the quiet one');
