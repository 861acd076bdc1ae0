-- What every part of the store needs: the hash by which keys are told apart, and the place of this store in the world.

-- One row: which store this is. Copied with the data by a backup, so that a restored store is the same one.
create table {schema}.store (
    one boolean primary key default true check (one),
    id uuid not null default gen_random_uuid()
);
insert into {schema}.store default values;

-- The hash of a key of a topic: the first eight bytes of SHA-256 over the topic, a line feed, and the key. The client
-- computes the same, so it must never change: the order of a key hangs on it.
create function {schema}.key_hash(topic text, key text) returns bigint
    language sql immutable strict parallel safe
    return ('x' || encode(substring(sha256(convert_to(topic || e'\n' || key, 'UTF8')) for 8), 'hex'))::bit(64)::bigint;
