create table {schema}.pooled (
    place bigint generated always as identity,
    number integer not null,
    text text not null
)
