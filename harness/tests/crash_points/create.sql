create table {schema}.published (line integer primary key);
-- Nothing is unique here, so that what happens twice shows.
create table {schema}.effects (
    position bigint generated always as identity,
    consumer text not null,
    line integer not null,
    key text not null
);
create table {schema}.calls (
    consumer text not null,
    line integer not null
);
