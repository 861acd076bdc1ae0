-- Where a test has this called, it waits while the test holds the lock of the same number.
create function {schema}.pause() returns bigint language plpgsql as $$
begin
    perform pg_advisory_xact_lock_shared(hashtextextended('{schema} pause', 0));
    return null;
end
$$;
create function {schema}.pause_trigger() returns trigger language plpgsql as $$
begin
    perform {schema}.pause();
    return null;
end
$$
