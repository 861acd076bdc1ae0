create table {schema}.published (line integer primary key);
-- Nothing is unique here, so that what happens twice shows.
create table {schema}.effects (
    position bigint generated always as identity,
    consumer text not null,
    line integer not null,
    key text not null
);
-- A number that is taken stays taken, whatever becomes of its transaction.
create sequence {schema}.calls minvalue 0 start 0;
select nextval('{schema}.calls');
