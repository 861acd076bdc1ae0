-- What anybody may ask of a server and of a database, whatever is in it.
select
    current_setting('server_version_num')::int as version,
    current_setting('server_version') as version_name,
    current_user::text as "user",
    pg_is_in_recovery() as is_in_recovery,
    current_setting('transaction_read_only')::bool as is_read_only,
    current_setting('fsync')::bool as syncs,
    current_setting('full_page_writes')::bool as writes_pages,
    current_setting('synchronous_commit') as commits,
    current_setting('max_connections')::int
        - current_setting('superuser_reserved_connections')::int as connections,
    -- Of others' sessions a user without the right to see them is told nothing but that they are there, with some of the
    -- server's own processes among them.
    (select count(*) from pg_stat_activity where coalesce(backend_type, 'client backend') = 'client backend')::int
        as connected,
    (extract(epoch from clock_timestamp()) * 1000000)::bigint as micros
