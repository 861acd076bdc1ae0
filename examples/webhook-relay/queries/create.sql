-- Any number of processes may begin at once: one of them creates, the others wait.
select pg_advisory_xact_lock(hashtext('webhook-relay'));

-- What was received, as it was signed.
create table if not exists webhook (
    delivery uuid primary key,
    repository text not null,
    number bigint not null,
    event text not null,
    body bytea not null,
    received_at timestamptz not null default clock_timestamp(),
    unique (repository, number)
);

-- How many webhooks of a repository were received: the number of the latest.
create table if not exists repository (
    name text primary key,
    received bigint not null
);

-- What the group `statistics` has made of them. Nothing here makes it right: a webhook that is counted twice or in another
-- order shows.
create table if not exists statistics (
    repository text primary key,
    handled bigint not null,
    last_number bigint not null,
    gaps bigint not null
);
create table if not exists event_statistics (
    repository text not null,
    event text not null,
    handled bigint not null,
    primary key (repository, event)
);
