create table {schema}.migration (
    version integer primary key check (version > 0),
    name text not null,
    checksum bytea not null,
    applied_at timestamptz not null default clock_timestamp()
)
