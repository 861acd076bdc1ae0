-- What operators do to dead letters: who, when, what. It goes with its dead letter.
create table {schema}.dead_letter_change (
    n bigint generated always as identity primary key,
    letter bigint not null references {schema}.dead_letter (n) on delete cascade,
    at timestamptz not null default clock_timestamp(),
    by text not null,
    -- 0 edited, 1 redriven, 2 discarded
    kind smallint not null check (kind in (0, 1, 2)),
    -- The payload before an edit; that of a redrive, where it is another than the dead letter's.
    payload bytea
);
create index dead_letter_change_letter on {schema}.dead_letter_change (letter, n);

alter table {schema}.dead_letter add column edits integer not null default 0;

insert into {schema}.dead_letter_change (letter, at, by, kind)
select d.n, d.redriven_at, d.redriven_by, 1 from {schema}.dead_letter d where d.redriven_at is not null
union all
select d.n, d.discarded_at, d.discarded_by, 2 from {schema}.dead_letter d where d.discarded_at is not null
order by 2;

-- What failures of one kind have in common, as Failure::shape of the library has it.
create function {schema}.error_shape(message text) returns text
    language sql immutable strict parallel safe
    return left(regexp_replace(message collate "C", '[0-9A-Za-z_-]*[0-9][0-9A-Za-z_-]*', '#', 'g'), 200);

-- Redrives one dead letter: -1 now, -2 not found, -3 closed, -6 superseded, -7 too old, -8 redriven often enough.
create or replace function {schema}.dead_letter_redrive_one(letter uuid, who text, cap integer, max_age bigint, body bytea)
    returns bigint language plpgsql set enable_seqscan = off set plan_cache_mode = force_generic_plan as $$
declare
    d record;
    r record;
    stands smallint;
    behind boolean;
begin
    select * into d from {schema}.dead_letter l where l.dead_letter_id = letter for update;
    if not found then
        return -2;
    elsif d.redriven_at is not null or d.discarded_at is not null then
        return -3;
    elsif d.buried_at < clock_timestamp() - max_age * interval '1 microsecond' then
        return -7;
    elsif d.redrives >= cap then
        return -8;
    end if;
    if d.origin is null then
        if not {schema}.outbox_put(
            d.id, d.topic, d.key, coalesce(d.headers::jsonb ->> 'hl-priority', '0')::smallint, d.occurred_at,
            d.content_type, d.headers, coalesce(body, d.payload), null, letter, d.redrives + 1)
            and (body is not null or d.edits > 0)
        then
            -- One that was published again meanwhile is on its way already, but not with this payload.
            raise exception 'message % was published again and waits in the outbox: it would go without this payload', d.id
                using errcode = 'unique_violation';
        end if;
    else
        select i.state, i.key_hash, i.idempotency_key as k into r from {schema}.inbox i
        where i.grp = d.origin and i.id = d.id and i.state = 3 and i.dead_letter = letter
        for update;
        if not found then
            return -3;
        end if;
        stands := {schema}.inbox_reserved(d.origin, r.k, d.id);
        if stands = 3 then
            return -6;
        end if;
        behind := r.key_hash is not null and {schema}.inbox_is_behind(d.origin, r.key_hash, null);
        if not behind and stands = 0 and r.k is not null then
            begin
                insert into {schema}.idempotency (grp, key, id) values (d.origin, r.k, d.id) on conflict do nothing;
            exception when lock_not_available then
                stands := 2;
            end;
        end if;
        update {schema}.inbox i
        set state = 1, at = clock_timestamp(), epoch = i.epoch + 1, rounds = 0, failures = null,
            redrives = d.redrives + 1, place = nextval('{schema}.inbox_place'),
            queue = case when i.key_hash is not null then 3 when stands = 2 then 2 else 1 end
        where i.grp = d.origin and i.id = d.id;
        insert into {schema}.parked_message (grp, id, key, occurred_at, content_type, headers, payload)
        values (d.origin, d.id, d.key, d.occurred_at, d.content_type, d.headers, coalesce(body, d.payload));
    end if;
    update {schema}.dead_letter l set redriven_by = who, redriven_at = clock_timestamp() where l.n = d.n
    returning l.redriven_at into d.redriven_at;
    insert into {schema}.dead_letter_change (letter, at, by, kind, payload) values (d.n, d.redriven_at, who, 1, body);
    return -1;
end $$;

-- Gives one dead letter another payload: -1 now, -2 not found, -3 closed, -8 edited often enough, -9 edited since it was seen.
create function {schema}.dead_letter_edit(target uuid, body bytea, who text, seen integer, cap integer) returns bigint
    language plpgsql set enable_seqscan = off set plan_cache_mode = force_generic_plan set lock_timeout = 0 as $$
declare
    d record;
begin
    perform set_config('lock_timeout', '5000', true);
    select l.n, l.payload, l.edits, l.redriven_at, l.discarded_at into d
    from {schema}.dead_letter l where l.dead_letter_id = target for update;
    if not found then
        return -2;
    elsif d.redriven_at is not null or d.discarded_at is not null then
        return -3;
    elsif d.edits <> seen then
        return -9;
    elsif d.edits >= cap then
        return -8;
    end if;
    insert into {schema}.dead_letter_change (letter, by, kind, payload) values (d.n, who, 0, d.payload);
    update {schema}.dead_letter l set payload = body, edits = l.edits + 1 where l.n = d.n;
    return -1;
end $$;
