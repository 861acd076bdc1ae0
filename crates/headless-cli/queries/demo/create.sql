create table {schema}.published (
    line text primary key,
    key text not null,
    idempotency_key text not null,
    message text not null
);
-- Nothing is unique here, so that a message which is handled twice shows.
create table {schema}.handled (
    position bigint generated always as identity,
    line text not null,
    key text not null,
    idempotency_key text not null,
    message text not null
);
