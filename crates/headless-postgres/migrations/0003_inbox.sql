-- The inbox, what is parked, and dead letters. One state machine over the rows of inbox; docs/decisions/0008 says why it
-- is built as it is.

-- States: 0 running, 1 parked, 2 processed, 3 dead, 4 discarded.
--
-- place: the row's place in its key, from when it is first parked; a running row with one was claimed from the park.
-- at: until when it is leased (running), when it is due (parked), when it ended (the others).
-- queue: who has to look at a row of the park next.
--   1 a claim may take it first once it is due: the head of its key, nothing of which is with a worker, or without a key
--   2 as 1, but another message has reserved its idempotency key
--   3 its key has to be looked at: it came into its key, or left it
--   null: nobody; it follows another row of its key, which will be 3 when it goes
-- A row that was never admitted, parked or buried has null for most of this, since there are many of them.
create table {schema}.inbox (
    id uuid not null,
    at timestamptz not null,
    place bigint,
    key_hash bigint,
    epoch bigint,
    owner uuid,
    dead_letter uuid,
    rounds integer,
    redrives integer,
    state smallint not null,
    queue smallint,
    grp text collate "C" not null,
    topic text collate "C" not null,
    idempotency_key text collate "C",
    failures jsonb,
    primary key (grp, id)
);
create sequence {schema}.inbox_place;

-- None of these is written by the mark of a message that was neither admitted nor parked.
create index inbox_running on {schema}.inbox (at) where state = 0;
create index inbox_key on {schema}.inbox (grp, key_hash, state, place) where place is not null and state in (0, 1);
create index inbox_due on {schema}.inbox (grp, topic, at, place) where queue = 1;
create index inbox_waiting on {schema}.inbox (grp, idempotency_key) where queue = 2;
create index inbox_stirred on {schema}.inbox (grp) where queue = 3;

-- Which message of a group has an idempotency key: one that runs, is parked by failure, or was processed.
create table {schema}.idempotency (
    grp text collate "C" not null,
    key text collate "C" not null,
    id uuid not null,
    primary key (grp, key)
);

-- The message of each row of inbox that has a place.
create table {schema}.parked_message (
    grp text collate "C" not null,
    id uuid not null,
    key text,
    occurred_at timestamptz not null,
    content_type text,
    headers text,
    payload bytea not null,
    primary key (grp, id)
);

-- Where the look at what waits for idempotency keys goes on, of a group with more of them than one look takes.
create table {schema}.inbox_probe (
    grp text collate "C" primary key,
    after text collate "C" not null
);

-- How many rows of a group had a place a moment ago: counting a full park for each message would cost more than parking it.
create table {schema}.inbox_parked_count (
    grp text collate "C" primary key,
    rows bigint not null,
    counted_at timestamptz not null
);

-- How long ago the first row ended that is left in a stretch of the pages of inbox: what a purge has to look through. A
-- stretch is looked through again when its oldest row has reached the age, so that no row needs an index for it.
create table {schema}.inbox_stretch (
    page bigint primary key,
    oldest timestamptz not null
);
create index inbox_stretch_oldest on {schema}.inbox_stretch (oldest);
-- The file whose pages they are: a rewrite of the table makes another.
create table {schema}.inbox_file (
    one boolean primary key default true check (one),
    file oid not null
);

-- Dead letters; an origin of null is the relay. They die in the order of n.
create table {schema}.dead_letter (
    n bigint generated always as identity primary key,
    dead_letter_id uuid not null unique default gen_random_uuid(),
    origin text collate "C",
    id uuid not null,
    topic text collate "C" not null,
    key text,
    occurred_at timestamptz not null,
    content_type text,
    headers text,
    payload bytea not null,
    failures jsonb not null,
    rounds integer not null,
    buried_at timestamptz not null default clock_timestamp(),
    redrives integer not null default 0,
    previous uuid,
    redriven_by text,
    redriven_at timestamptz,
    discarded_by text,
    discarded_at timestamptz
);
create index dead_letter_buried_at on {schema}.dead_letter (buried_at);
create index dead_letter_open on {schema}.dead_letter (n) where redriven_at is null and discarded_at is null;

create function {schema}.microseconds(span interval) returns bigint
    language sql immutable strict parallel safe
    return (extract(epoch from span) * 1000000)::bigint;

-- What calls of this file answer about a message: -1 now, -2 behind, -3 lease lost, -4 key free, -5 full, -6 superseded,
-- -10 - state already, and from 0 on: busy, for so many microseconds.

-- Whether an unfinished row of a key has a place before this one.
create function {schema}.inbox_is_behind(g text, hash bigint, before bigint) returns boolean
    language plpgsql set enable_seqscan = off set plan_cache_mode = force_generic_plan as $$
begin
    return exists (
        select from {schema}.inbox i
        where i.grp = g and i.key_hash = hash and i.state in (0, 1) and i.place is not null
            and i.place < coalesce(before, 9223372036854775807)
    );
end $$;

-- How an idempotency key stands to a message: 0 free, 1 its own, 2 with another that is unfinished, 3 with another that
-- was processed.
create function {schema}.inbox_reserved(g text, k text, m uuid) returns smallint
    language plpgsql set enable_seqscan = off set plan_cache_mode = force_generic_plan as $$
declare
    holder record;
begin
    if k is null then
        return 0;
    end if;
    select r.id, i.state into holder
    from {schema}.idempotency r left join {schema}.inbox i on i.grp = r.grp and i.id = r.id
    where r.grp = g and r.key = k;
    if not found then
        return 0;
    elsif holder.id = m then
        return 1;
    elsif holder.state = 2 then
        return 3;
    end if;
    return 2;
end $$;

-- Ends a message as processed, dead or discarded; the caller has set a bound on waiting.
create function {schema}.inbox_end_one(
    g text, m uuid, t text, hash bigint, k text, o uuid, e bigint, target smallint
) returns bigint language plpgsql set enable_seqscan = off set plan_cache_mode = force_generic_plan as $$
declare
    r record;
    stands smallint;
begin
    loop
        select i.state, i.at, i.place, i.key_hash, i.owner, i.epoch, i.idempotency_key as k into r
        from {schema}.inbox i where i.grp = g and i.id = m;
        if not found then
            if o is not null then
                return -3;
            end if;
            if target <> 4 then
                stands := {schema}.inbox_reserved(g, k, m);
                if stands = 3 then
                    return -12;
                elsif stands = 2 or (hash is not null and {schema}.inbox_is_behind(g, hash, null)) then
                    return -2;
                end if;
            end if;
            insert into {schema}.inbox (grp, id, topic, idempotency_key, state, at)
            values (g, m, t, case when target = 2 then k end, target, clock_timestamp())
            on conflict do nothing;
            -- Somebody else was first: look again.
            continue when not found;
            if target = 2 and k is not null and stands = 0 then
                insert into {schema}.idempotency (grp, key, id) values (g, k, m) on conflict do nothing;
                if not found then
                    delete from {schema}.inbox i where i.grp = g and i.id = m;
                    continue;
                end if;
            end if;
            return -1;
        end if;
        if r.state >= 2 then
            return -10 - r.state;
        end if;
        if o is null then
            if r.state = 1 or (r.place is not null and r.at <= clock_timestamp()) then
                return -11;
            end if;
            return greatest(0, {schema}.microseconds(r.at - clock_timestamp()));
        end if;
        if r.state = 1 or r.owner is distinct from o or r.epoch <> e then
            return -3;
        end if;
        perform from {schema}.inbox i
        where i.grp = g and i.id = m and i.state = 0 and i.owner = o and i.epoch = e
        for update;
        continue when not found;
        if target <> 4 and r.key_hash is not null and {schema}.inbox_is_behind(g, r.key_hash, r.place) then
            return -2;
        end if;
        update {schema}.inbox i
        set state = target, at = clock_timestamp(), owner = null,
            place = case when i.key_hash is not null then i.place end,
            queue = case when i.key_hash is not null and i.place is not null then 3 end
        where i.grp = g and i.id = m;
        if r.place is not null then
            delete from {schema}.parked_message p where p.grp = g and p.id = m;
        end if;
        if r.k is not null and target <> 2 then
            delete from {schema}.idempotency x where x.grp = g and x.key = r.k and x.id = m;
        end if;
        return -1;
    end loop;
end $$;

-- Marks many as processed (2) or discarded (4). Rows are locked in the order of their ids. A row of another transaction is
-- waited for at most wait milliseconds; then it is busy. Arrays of nothing but null may be null.
create function {schema}.inbox_mark(
    grps text[], ids uuid[], topics text[], hashes bigint[], ks text[], owners uuid[], epochs bigint[],
    target smallint, wait integer
) returns bigint[]
    language plpgsql set enable_seqscan = off set plan_cache_mode = force_generic_plan set lock_timeout = 0 as $$
declare
    answers bigint[] := array_fill(null::bigint, array[cardinality(ids)]);
    made bigint;
    made_ids uuid[];
    reserved bigint;
    waited boolean := false;
    parked boolean := true;
    n integer;
    -- What set_config answers. To `perform` it would be to run a query.
    bound text;
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        -- It would mark a message past an earlier one of its key that was parked since the transaction began.
        raise exception 'messages are marked in read committed transactions alone' using errcode = '25001';
    end if;
    bound := set_config('lock_timeout', wait::text, true);
    if owners is null and ks is null and target = 2 then
        -- As a rule nobody has marked any of it: tried without looking for each id first.
        begin
            -- As a rule they are of one group, and nothing of their keys is parked either: one look at all keys costs less than
            -- one for each. (A look at the group as a whole would meet whatever has left the park under an old snapshot.)
            if hashes is not null and grps[1] = all (grps) then
                parked := exists (
                    select from {schema}.inbox i
                    where i.grp = grps[1] and i.key_hash = any (hashes) and i.state in (0, 1) and i.place is not null
                );
            end if;
            insert into {schema}.inbox (grp, id, topic, state, at)
            select a.grp, a.id, a.topic, 2, clock_timestamp()
            from unnest(grps, ids, topics, hashes) as a(grp, id, topic, hash)
            where not parked or a.hash is null or (
                select 1 from {schema}.inbox i
                where i.grp = a.grp and i.key_hash = a.hash and i.state in (0, 1) and i.place is not null
                limit 1
            ) is null
            order by a.id, a.grp;
            get diagnostics made = row_count;
            if made = cardinality(ids) then
                return array_fill(-1::bigint, array[cardinality(ids)]);
            end if;
            raise exception using errcode = 'HL001';
        exception
            when lock_not_available or deadlock_detected then
                waited := true;
            when unique_violation or sqlstate 'HL001' then
                null;
        end;
    end if;
    if owners is null and target = 2 and not waited then
        begin
            with fresh as (
                insert into {schema}.inbox (grp, id, topic, idempotency_key, state, at)
                select a.grp, a.id, a.topic, a.k, 2, clock_timestamp()
                from unnest(grps, ids, topics, hashes, ks) as a(grp, id, topic, hash, k)
                where (a.hash is null or (
                        select 1 from {schema}.inbox i
                        where i.grp = a.grp and i.key_hash = a.hash and i.state in (0, 1) and i.place is not null
                        limit 1
                    ) is null)
                    and (a.k is null or (
                        select 1 from {schema}.idempotency r where r.grp = a.grp and r.key = a.k limit 1
                    ) is null)
                order by a.id, a.grp
                on conflict do nothing
                returning id
            )
            select count(*), case when count(*) < cardinality(ids) then array_agg(id) end into made, made_ids from fresh;
            if ks is not null then
                insert into {schema}.idempotency (grp, key, id)
                select a.grp, a.k, a.id from unnest(grps, ids, ks) as a(grp, id, k)
                where a.k is not null
                order by a.k, a.grp
                on conflict do nothing;
                get diagnostics reserved = row_count;
                if made < cardinality(ids) or reserved <> (select count(k) from unnest(ks) k) then
                    -- Not everyone's case after all: undo it, and take them one by one.
                    raise exception using errcode = 'HL001';
                end if;
            end if;
            if made = cardinality(ids) then
                return array_fill(-1::bigint, array[cardinality(ids)]);
            end if;
            -- An id that is there in several groups, or twice, is told apart below: what was made is found then.
            if made > 0 and (select min(a) = max(a) from unnest(grps) a) then
                for n in select min(a.n)::integer
                    from unnest(ids) with ordinality as a(id, n) where a.id = any(made_ids) group by a.id
                loop
                    answers[n] := -1;
                end loop;
            elsif made > 0 then
                raise exception using errcode = 'HL001';
            end if;
        exception
            when lock_not_available or deadlock_detected then
                waited := true;
            when sqlstate 'HL001' then
                null;
        end;
    end if;
    if waited then
        -- It was waited for as long as allowed: now only see which one it was.
        perform set_config('lock_timeout', least(wait, 10)::text, true);
    end if;
    -- In the order of their ids: what has no row is done, or told why not; what is held is locked.
    for n in select a.n from unnest(ids, grps) with ordinality as a(id, grp, n) order by a.id, a.grp, a.n loop
        continue when answers[n] is not null;
        begin
            if owners[n] is null then
                answers[n] := {schema}.inbox_end_one(
                    grps[n], ids[n], topics[n], hashes[n], ks[n], null, null, target);
                if answers[n] = -2 then
                    -- What stands before it may be marked by this very call.
                    answers[n] := null;
                end if;
            else
                perform from {schema}.inbox i
                where i.grp = grps[n] and i.id = ids[n] and i.state = 0 and i.owner = owners[n] and i.epoch = epochs[n]
                for update;
            end if;
        exception when lock_not_available or deadlock_detected then
            answers[n] := 1000000;
        end;
    end loop;
    -- In the order of the batch: the rest.
    for n in 1 .. cardinality(ids) loop
        continue when answers[n] is not null;
        begin
            answers[n] := {schema}.inbox_end_one(
                grps[n], ids[n], topics[n], hashes[n], ks[n], owners[n], epochs[n], target);
        exception when lock_not_available or deadlock_detected then
            answers[n] := 1000000;
        end;
    end loop;
    return answers;
end $$;

-- Marks one as processed, of which nothing is held and which has no idempotency key: the usual case, without arrays. What it
-- cannot answer at once it leaves to the other.
create function {schema}.inbox_mark_one(g text, m uuid, t text, hash bigint, wait integer) returns bigint
    language plpgsql set enable_seqscan = off set plan_cache_mode = force_generic_plan set lock_timeout = 0 as $$
declare
    -- It was waited for as long as allowed, when it is needed.
    patience integer := wait;
    -- What set_config answers. To `perform` it would be to run a query.
    bound text;
begin
    bound := set_config('lock_timeout', wait::text, true);
    begin
        insert into {schema}.inbox (grp, id, topic, state, at)
        select g, m, t, 2, clock_timestamp()
        where hash is null or (
            select 1 from {schema}.inbox i
            where i.grp = g and i.key_hash = hash and i.state in (0, 1) and i.place is not null
            limit 1
        ) is null;
        if found then
            return -1;
        end if;
    exception
        when lock_not_available or deadlock_detected then
            patience := least(wait, 10);
        when unique_violation then
            null;
    end;
    return ({schema}.inbox_mark(array[g], array[m], array[t], array[hash], null, null, null, 2::smallint, patience))[1];
end $$;

-- Admits one message; the caller has set a bound on waiting.
create function {schema}.inbox_admit_one(
    g text, m uuid, t text, hash bigint, k text, o uuid, lease bigint,
    out answer bigint, out new_epoch bigint, out new_rounds integer
) language plpgsql set enable_seqscan = off set plan_cache_mode = force_generic_plan as $$
declare
    r record;
    stands smallint;
begin
    loop
        select i.state, i.at, i.place into r from {schema}.inbox i where i.grp = g and i.id = m;
        if not found then
            stands := {schema}.inbox_reserved(g, k, m);
            if stands = 3 then
                answer := -12;
                return;
            elsif stands = 2 or (hash is not null and {schema}.inbox_is_behind(g, hash, null)) then
                answer := -2;
                return;
            end if;
            insert into {schema}.inbox (grp, id, topic, key_hash, idempotency_key, state, at, owner, epoch, rounds)
            values (g, m, t, hash, k, 0, clock_timestamp() + lease * interval '1 microsecond', o, 1, 1)
            on conflict do nothing;
            continue when not found;
            if k is not null and stands = 0 then
                insert into {schema}.idempotency (grp, key, id) values (g, k, m) on conflict do nothing;
                if not found then
                    delete from {schema}.inbox i where i.grp = g and i.id = m;
                    continue;
                end if;
            end if;
            answer := -1;
            new_epoch := 1;
            new_rounds := 1;
            return;
        end if;
        if r.state >= 1 then
            answer := -10 - r.state;
            return;
        end if;
        if r.at > clock_timestamp() then
            answer := {schema}.microseconds(r.at - clock_timestamp());
            return;
        end if;
        if r.place is not null then
            -- As good as parked: the next claim, pulse or reaper parks it.
            answer := -11;
            return;
        end if;
        perform from {schema}.inbox i
        where i.grp = g and i.id = m and i.state = 0 and i.at <= clock_timestamp()
        for update skip locked;
        if not found then
            -- Taken over at this moment, or held by an open transaction.
            answer := 1000000;
            return;
        end if;
        update {schema}.inbox i
        set owner = o, epoch = i.epoch + 1, rounds = i.rounds + 1,
            at = clock_timestamp() + lease * interval '1 microsecond'
        where i.grp = g and i.id = m
        returning i.epoch, i.rounds into new_epoch, new_rounds;
        answer := -1;
        return;
    end loop;
end $$;

create function {schema}.inbox_admit(
    grps text[], ids uuid[], topics text[], hashes bigint[], ks text[], o uuid, lease bigint, wait integer,
    out answers bigint[], out epochs bigint[], out rounds integer[]
) language plpgsql set enable_seqscan = off set plan_cache_mode = force_generic_plan set lock_timeout = 0 as $$
declare
    n integer;
    one record;
    twice boolean;
begin
    perform set_config('lock_timeout', wait::text, true);
    answers := array_fill(null::bigint, array[cardinality(ids)]);
    epochs := array_fill(null::bigint, array[cardinality(ids)]);
    rounds := array_fill(null::integer, array[cardinality(ids)]);
    for n in select a.n from unnest(ids, grps) with ordinality as a(id, grp, n) order by a.id, a.grp, a.n loop
        begin
            select * into one from {schema}.inbox_admit_one(
                grps[n], ids[n], topics[n], hashes[n], ks[n], o, lease);
            answers[n] := one.answer;
            epochs[n] := one.new_epoch;
            rounds[n] := one.new_rounds;
        exception when lock_not_available or deadlock_detected then
            answers[n] := 1000000;
            -- One wait is enough for a batch.
            perform set_config('lock_timeout', least(wait, 10)::text, true);
        end;
    end loop;
end $$;

-- Holds rows for another lease; returns those that are held, those of an open transaction among them.
create function {schema}.inbox_renew(g text, ids uuid[], epochs bigint[], o uuid, lease bigint)
    returns table (held_id uuid, held_epoch bigint)
    language plpgsql set enable_seqscan = off set plan_cache_mode = force_generic_plan as $$
begin
    return query
    select i.id, i.epoch from {schema}.inbox i
    join unnest(ids, epochs) as c(id, epoch) on i.grp = g and i.id = c.id and i.epoch = c.epoch
    where i.state = 0 and i.owner = o;
    with held as (
        select i.id from {schema}.inbox i
        join unnest(ids, epochs) as c(id, epoch) on i.grp = g and i.id = c.id and i.epoch = c.epoch
        where i.state = 0 and i.owner = o
        order by i.id
        for update of i skip locked
    )
    update {schema}.inbox i set at = clock_timestamp() + lease * interval '1 microsecond'
    from held where i.grp = g and i.id = held.id;
end $$;

-- Gives rows back: those from the park to the park, the others for the next delivery; returns which. The ids of many
-- groups are told apart by owner alone where g is null. Passes over what an open transaction holds.
create function {schema}.inbox_give_back(
    g text, ids uuid[], claimed bigint[], o uuid, after bigint, unused boolean, added jsonb, ending boolean
) returns table (back_id uuid, back_epoch bigint)
    language plpgsql set enable_seqscan = off set plan_cache_mode = force_generic_plan as $$
begin
    return query
    with held as (
        select i.grp, i.id, i.epoch from {schema}.inbox i
        where i.state = 0 and i.owner = o and (ending or i.place is not null)
            and (g is null or (i.grp = g and (i.id, i.epoch) in (select * from unnest(ids, claimed))))
        order by i.id, i.grp
        for update skip locked
    ), back as (
        update {schema}.inbox i
        set state = case when i.place is null then 0 else 1 end,
            at = clock_timestamp() + case when i.place is null then 0 else after end * interval '1 microsecond',
            owner = null,
            epoch = i.epoch + case when ending then 1 else 0 end,
            rounds = case when unused then greatest(i.rounds - 1, 0) else i.rounds end,
            failures = case when added is null then i.failures else {schema}.failures_append(i.failures, added) end,
            queue = case when i.place is null then null when i.key_hash is null then 1 else 3 end
        from held where i.grp = held.grp and i.id = held.id
        returning i.id, held.epoch
    )
    select back.id, back.epoch from back;
    -- What is behind another again reserves nothing.
    delete from {schema}.idempotency r using {schema}.inbox i
    where g is not null and i.grp = g and i.id = any(ids) and i.state = 1 and i.queue = 3
        and r.grp = g and r.key = i.idempotency_key and r.id = i.id
        and {schema}.inbox_is_behind(g, i.key_hash, i.place);
end $$;

-- Parks again what was claimed from the park and whose lease has ended.
create function {schema}.inbox_reap(most bigint) returns bigint
    language plpgsql set enable_seqscan = off set plan_cache_mode = force_generic_plan as $$
declare
    reaped bigint;
    -- The clock itself, which goes on within a statement, would keep the index from being used.
    moment constant timestamptz := clock_timestamp();
begin
    with ended as (
        select i.grp, i.id from {schema}.inbox i
        where i.state = 0 and i.place is not null and i.at <= moment
        order by i.at
        limit most
        for update skip locked
    )
    update {schema}.inbox i
    set state = 1, at = clock_timestamp(), owner = null, queue = case when i.key_hash is null then 1 else 3 end
    from ended where i.grp = ended.grp and i.id = ended.id;
    get diagnostics reaped = row_count;
    return reaped;
end $$;

-- Parks one message; the caller has set a bound on waiting.
create function {schema}.inbox_park_one(
    g text, m uuid, t text, msg_key text, hash bigint, k text, o uuid, e bigint,
    occurred timestamptz, ctype text, heads text, body bytea,
    after bigint, only_behind boolean, unused boolean, added jsonb, per_key bigint, group_is_full boolean,
    out answer bigint, out is_new boolean
) language plpgsql set enable_seqscan = off set plan_cache_mode = force_generic_plan as $$
declare
    r record;
    known boolean;
    stands smallint;
    behind boolean;
    next_queue smallint;
    last_place bigint;
begin
    is_new := false;
    loop
        select i.state, i.at, i.place, i.key_hash, i.owner, i.epoch, i.idempotency_key as k into r
        from {schema}.inbox i where i.grp = g and i.id = m;
        known := found;
        if not known then
            if o is not null then
                answer := -3;
                return;
            end if;
        else
            if r.state >= 1 then
                answer := -10 - r.state;
                return;
            end if;
            if o is null and r.place is not null and r.at <= clock_timestamp() then
                answer := -11;
                return;
            end if;
            if o is null or r.owner is distinct from o or r.epoch <> e then
                answer := -3;
                return;
            end if;
            perform from {schema}.inbox i
            where i.grp = g and i.id = m and i.state = 0 and i.owner = o and i.epoch = e
            for update;
            continue when not found;
            hash := r.key_hash;
            k := r.k;
            last_place := r.place;
        end if;
        stands := {schema}.inbox_reserved(g, k, m);
        behind := hash is not null and {schema}.inbox_is_behind(g, hash, last_place);
        if stands = 3 then
            answer := -12;
            return;
        end if;
        if only_behind and not behind and stands <> 2 then
            answer := -4;
            return;
        end if;
        if last_place is null and (group_is_full or (hash is not null and (
            select count(*) from (
                select from {schema}.inbox i
                where i.grp = g and i.key_hash = hash and i.state in (0, 1) and i.place is not null
                limit per_key
            ) of_key) >= per_key))
        then
            answer := -5;
            return;
        end if;
        if not known then
            insert into {schema}.inbox (grp, id, topic, key_hash, idempotency_key, state, at)
            values (g, m, t, hash, k, 1, clock_timestamp())
            on conflict do nothing;
            continue when not found;
        end if;
        if behind then
            if stands = 1 then
                delete from {schema}.idempotency x where x.grp = g and x.key = k and x.id = m;
            end if;
        elsif stands = 0 and k is not null then
            begin
                insert into {schema}.idempotency (grp, key, id) values (g, k, m) on conflict do nothing;
                if not found then
                    stands := 2;
                end if;
            exception when lock_not_available or deadlock_detected then
                -- An open transaction may be about to have it.
                stands := 2;
            end;
        end if;
        next_queue := case when hash is not null then 3 when stands = 2 then 2 else 1 end;
        update {schema}.inbox i
        set state = 1, at = clock_timestamp() + after * interval '1 microsecond', owner = null,
            place = coalesce(i.place, nextval('{schema}.inbox_place')), queue = next_queue,
            epoch = coalesce(i.epoch, 0),
            rounds = case
                when i.rounds is null then case when unused then 0 else 1 end
                when unused then greatest(i.rounds - 1, 0)
                else i.rounds end,
            failures = {schema}.failures_append(i.failures, added)
        where i.grp = g and i.id = m;
        insert into {schema}.parked_message (grp, id, key, occurred_at, content_type, headers, payload)
        values (g, m, msg_key, occurred, ctype, heads, body)
        on conflict (grp, id) do update
        set key = excluded.key, occurred_at = excluded.occurred_at, content_type = excluded.content_type,
            headers = excluded.headers, payload = excluded.payload;
        is_new := last_place is null;
        answer := -1;
        return;
    end loop;
end $$;

-- How many rows of a group have a place, counted up to a bound. Far from a wide bound it may be a second old.
create function {schema}.inbox_parked_of(g text, bound bigint) returns bigint
    language plpgsql set enable_seqscan = off set plan_cache_mode = force_generic_plan as $$
declare
    wide constant boolean := bound > 10000;
    counted bigint;
begin
    if wide then
        select c.rows into counted from {schema}.inbox_parked_count c
        where c.grp = g and c.counted_at > clock_timestamp() - interval '1 second' and c.rows < bound / 10 * 9;
        if found then
            return counted;
        end if;
    end if;
    select count(*) into counted from (
        select from {schema}.inbox i
        where i.grp = g and i.state in (0, 1) and i.place is not null
        limit bound
    ) of_group;
    if wide then
        -- Whoever holds the count is counting too.
        perform from {schema}.inbox_parked_count c where c.grp = g for update skip locked;
        if found then
            update {schema}.inbox_parked_count c set rows = counted, counted_at = clock_timestamp() where c.grp = g;
        elsif not exists (select from {schema}.inbox_parked_count c where c.grp = g) then
            begin
                insert into {schema}.inbox_parked_count (grp, rows, counted_at)
                values (g, counted, clock_timestamp()) on conflict do nothing;
            exception when lock_not_available then
                null;
            end;
        end if;
    end if;
    return counted;
end $$;

create function {schema}.inbox_park(
    grps text[], ids uuid[], topics text[], msg_keys text[], hashes bigint[], ks text[], owners uuid[], epochs bigint[],
    occurred timestamptz[], ctypes text[], heads text[], bodies bytea[],
    afters bigint[], only_behind boolean[], unused boolean[], added text[], per_key bigint, per_group bigint, wait integer
) returns bigint[] language plpgsql set enable_seqscan = off set plan_cache_mode = force_generic_plan set lock_timeout = 0 as $$
declare
    answers bigint[] := array_fill(null::bigint, array[cardinality(ids)]);
    n integer;
    one record;
    counted text;
    room bigint;
begin
    perform set_config('lock_timeout', wait::text, true);
    for n in select a.n from unnest(ids, grps) with ordinality as a(id, grp, n) order by a.id, a.grp, a.n loop
        begin
            perform from {schema}.inbox i
            where i.grp = grps[n] and i.id = ids[n] and i.state = 0 and i.owner = owners[n] and i.epoch = epochs[n]
            for update;
        exception when lock_not_available or deadlock_detected then
            answers[n] := -3;
            perform set_config('lock_timeout', least(wait, 10)::text, true);
        end;
    end loop;
    for n in 1 .. cardinality(ids) loop
        continue when answers[n] is not null;
        if counted is distinct from grps[n] then
            counted := grps[n];
            room := per_group - {schema}.inbox_parked_of(counted, per_group);
        end if;
        begin
            select * into one from {schema}.inbox_park_one(
                grps[n], ids[n], topics[n], msg_keys[n], hashes[n], ks[n], owners[n], epochs[n],
                occurred[n], ctypes[n], heads[n], bodies[n],
                afters[n], only_behind[n], unused[n], added[n]::jsonb, per_key, room <= 0);
            answers[n] := one.answer;
            if one.is_new then
                room := room - 1;
            end if;
        exception when lock_not_available or deadlock_detected then
            answers[n] := -3;
            perform set_config('lock_timeout', least(wait, 10)::text, true);
        end;
    end loop;
    return answers;
end $$;

-- Claims and the looks at keys of one group go one after the other. The lock ends with the transaction.
create function {schema}.inbox_group_lock(g text) returns bigint
    language sql immutable strict
    return hashtextextended('headless inbox {schema} ' || g, 0);

-- Looks at the keys of a group in which something was stirred, and at what waits for an idempotency key. The caller has
-- the group's lock.
create function {schema}.inbox_settle(g text) returns void
    language plpgsql set enable_seqscan = off set plan_cache_mode = force_generic_plan as $$
declare
    hashes bigint[];
    k text;
    holder record;
    after constant text := coalesce((select p.after from {schema}.inbox_probe p where p.grp = g), '');
    last_k text;
    looked_at integer := 0;
begin
    -- First forget that they were stirred, then look: what stirs a key after this look leaves a sign of its own.
    with stirred as (
        select i.id from {schema}.inbox i where i.grp = g and i.queue = 3 limit 2000 for update skip locked
    ), seen as (
        update {schema}.inbox i
        set queue = null, place = case when i.state >= 2 then null else i.place end
        from stirred where i.grp = g and i.id = stirred.id and i.queue = 3
        returning i.key_hash
    )
    select array_agg(distinct seen.key_hash) into hashes from seen;
    if hashes is not null then
        -- What is behind another reserves nothing.
        delete from {schema}.idempotency r using {schema}.inbox i
        where i.grp = g and i.key_hash = any(hashes) and i.state = 1 and i.place is not null
            and i.idempotency_key is not null and r.grp = g and r.key = i.idempotency_key and r.id = i.id
            and {schema}.inbox_is_behind(g, i.key_hash, i.place);
        update {schema}.inbox i
        set queue = case when {schema}.inbox_reserved(g, i.idempotency_key, i.id) = 2 then 2 else 1 end,
            at = greatest(i.at, clock_timestamp())
        from unnest(hashes) as of(key_hash)
        cross join lateral (
            select h.id, h.state from {schema}.inbox h
            where h.grp = g and h.key_hash = of.key_hash and h.state in (0, 1) and h.place is not null
            order by h.place
            limit 1
        ) head
        where head.state = 1 and i.grp = g and i.id = head.id and i.state = 1 and i.queue is null
            and (select 1 from {schema}.inbox r
                where r.grp = g and r.key_hash = of.key_hash and r.state = 0 and r.place is not null limit 1) is null;
    end if;
    -- Nothing tells of a key that comes free. Each look takes a bounded number of those that are waited for, and goes on
    -- where the one before has ended.
    k := (select min(i.idempotency_key) from {schema}.inbox i
        where i.grp = g and i.queue = 2 and i.idempotency_key > after);
    if k is null and after <> '' then
        k := (select min(i.idempotency_key) from {schema}.inbox i where i.grp = g and i.queue = 2);
    end if;
    while k is not null loop
        exit when looked_at >= 500;
        looked_at := looked_at + 1;
        last_k := k;
        select i.state into holder
        from {schema}.idempotency r left join {schema}.inbox i on i.grp = r.grp and i.id = r.id
        where r.grp = g and r.key = k;
        if not found then
            -- Free: one of them may have it.
            update {schema}.inbox i set queue = 1, at = greatest(i.at, clock_timestamp())
            where i.grp = g and i.queue = 2 and i.id = (
                select w.id from {schema}.inbox w
                where w.grp = g and w.queue = 2 and w.idempotency_key = k order by w.at, w.place limit 1);
        elsif holder.state = 2 then
            -- They are duplicates all: a claim finishes them.
            update {schema}.inbox i set queue = 1, at = least(i.at, clock_timestamp())
            where i.grp = g and i.queue = 2 and i.idempotency_key = k;
        end if;
        k := (select min(i.idempotency_key) from {schema}.inbox i
            where i.grp = g and i.queue = 2 and i.idempotency_key > k);
    end loop;
    if looked_at >= 500 then
        insert into {schema}.inbox_probe as p (grp, after) values (g, last_k)
        on conflict (grp) do update set after = excluded.after;
    elsif after <> '' then
        delete from {schema}.inbox_probe p where p.grp = g;
    end if;
end $$;

-- Claims parked messages of a group; returns their ids in the order in which they are handed out.
create function {schema}.inbox_take(g text, o uuid, most integer, lease bigint, except_topics text[]) returns uuid[]
    language plpgsql set enable_seqscan = off set plan_cache_mode = force_generic_plan set lock_timeout = 0 as $$
declare
    taken uuid[] := '{}';
    head record;
    r record;
    stands smallint;
    met boolean;
    moment timestamptz;
begin
    perform set_config('lock_timeout', '100', true);
    begin
        perform pg_advisory_xact_lock({schema}.inbox_group_lock(g));
    exception when lock_not_available then
        return taken;
    end;
    perform set_config('lock_timeout', '5', true);
    perform {schema}.inbox_reap(1000);
    perform {schema}.inbox_settle(g);
    moment := clock_timestamp();
    loop
        met := false;
        for head in
            with recursive topics(topic) as (
                select min(i.topic) from {schema}.inbox i where i.grp = g and i.queue = 1
                union all
                select (select min(i.topic) from {schema}.inbox i
                    where i.grp = g and i.queue = 1 and i.topic > topics.topic)
                from topics where topics.topic is not null
            )
            select c.* from topics
            cross join lateral (
                select i.id, i.at, i.place, i.key_hash from {schema}.inbox i
                where i.grp = g and i.queue = 1 and i.topic = topics.topic and i.at <= moment
                order by i.at, i.place
                limit most
            ) c
            where topics.topic <> all (except_topics)
            order by c.at, c.place
            limit most
        loop
            exit when cardinality(taken) >= most;
            met := true;
            if head.key_hash is not null and (
                {schema}.inbox_is_behind(g, head.key_hash, head.place) or exists (
                    select from {schema}.inbox i
                    where i.grp = g and i.key_hash = head.key_hash and i.state = 0 and i.place is not null)
            ) then
                -- A row with an earlier place was committed later than this one.
                update {schema}.inbox i set queue = 3 where i.grp = g and i.id = head.id;
                continue;
            end if;
            -- The head and, in order and without a gap, what waits behind it.
            select i.id, i.at, i.place, i.idempotency_key as k into r from {schema}.inbox i
            where i.grp = g and i.id = head.id and i.state = 1 and i.queue = 1;
            while found and r.at <= moment and cardinality(taken) < most loop
                stands := {schema}.inbox_reserved(g, r.k, r.id);
                if stands = 0 and r.k is not null then
                    begin
                        insert into {schema}.idempotency (grp, key, id) values (g, r.k, r.id) on conflict do nothing;
                        if not found then
                            stands := {schema}.inbox_reserved(g, r.k, r.id);
                        end if;
                    exception when lock_not_available then
                        -- An open transaction may be about to have it.
                        stands := 2;
                    end;
                end if;
                if stands = 2 then
                    update {schema}.inbox i set queue = 2 where i.grp = g and i.id = r.id and i.queue = 1;
                    exit;
                elsif stands = 3 then
                    update {schema}.inbox i
                    set state = 2, at = clock_timestamp(), queue = case when i.key_hash is not null then 3 end,
                        place = case when i.key_hash is not null then i.place end
                    where i.grp = g and i.id = r.id;
                    delete from {schema}.parked_message p where p.grp = g and p.id = r.id;
                else
                    update {schema}.inbox i
                    set state = 0, at = clock_timestamp() + lease * interval '1 microsecond', owner = o,
                        epoch = i.epoch + 1, rounds = i.rounds + 1, queue = null
                    where i.grp = g and i.id = r.id;
                    taken := taken || r.id;
                end if;
                exit when head.key_hash is null;
                select i.id, i.at, i.place, i.idempotency_key as k into r from {schema}.inbox i
                where i.grp = g and i.key_hash = head.key_hash and i.state = 1 and i.place is not null
                    and i.place > r.place
                order by i.place
                limit 1;
            end loop;
        end loop;
        exit when not met or cardinality(taken) >= most;
    end loop;
    return taken;
end $$;

-- Claims parked messages of a group.
create function {schema}.inbox_claim(g text, o uuid, most integer, lease bigint, except_topics text[])
    returns table (
        id uuid, epoch bigint, rounds integer, failures text, ordered boolean, idempotency_key text, topic text,
        key text, occurred_at timestamptz, content_type text, headers text, payload bytea
    ) language plpgsql set enable_seqscan = off set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_column
declare
    taken constant uuid[] := {schema}.inbox_take(g, o, most, lease, except_topics);
begin
    return query
    select i.id, i.epoch, i.rounds, i.failures::text, i.key_hash is not null, i.idempotency_key, i.topic,
        p.key, p.occurred_at, p.content_type, p.headers, p.payload
    from unnest(taken) with ordinality as t(id, n)
    join {schema}.inbox i on i.grp = g and i.id = t.id
    join {schema}.parked_message p on p.grp = g and p.id = t.id
    order by t.n;
end $$;

-- Reaps, looks at stirred keys, and says in how many microseconds a parked row is due and the first lease ends.
create function {schema}.inbox_pulse(most bigint, out parked bigint, out lease bigint)
    language plpgsql set enable_seqscan = off set plan_cache_mode = force_generic_plan as $$
declare
    g text;
    moment timestamptz;
    due timestamptz;
begin
    perform {schema}.inbox_reap(most);
    for g in
        with recursive groups(g) as (
            select least(
                (select min(i.grp) from {schema}.inbox i where i.queue = 3),
                (select min(i.grp) from {schema}.inbox i where i.queue = 2))
            union all
            select least(
                (select min(i.grp) from {schema}.inbox i where i.queue = 3 and i.grp > groups.g),
                (select min(i.grp) from {schema}.inbox i where i.queue = 2 and i.grp > groups.g))
            from groups where groups.g is not null
        )
        select groups.g from groups where groups.g is not null
    loop
        if pg_try_advisory_xact_lock({schema}.inbox_group_lock(g)) then
            perform {schema}.inbox_settle(g);
        end if;
    end loop;
    with recursive topics(g, topic) as (
        (select i.grp, i.topic from {schema}.inbox i where i.queue = 1 order by i.grp, i.topic limit 1)
        union all
        select next.grp, next.topic from topics
        cross join lateral (
            select i.grp, i.topic from {schema}.inbox i
            where i.queue = 1 and (i.grp, i.topic) > (topics.g, topics.topic)
            order by i.grp, i.topic
            limit 1
        ) next
    )
    select min((
        select i.at from {schema}.inbox i
        where i.queue = 1 and i.grp = topics.g and i.topic = topics.topic order by i.at limit 1
    )) into due from topics;
    moment := clock_timestamp();
    parked := case when due is not null then greatest(0, {schema}.microseconds(due - moment)) end;
    lease := {schema}.microseconds((
        select i.at from {schema}.inbox i where i.state = 0 and i.at > moment order by i.at limit 1) - moment);
end $$;

-- Frees the idempotency keys of rows that a purge removes.
create function {schema}.inbox_free(grps text[], ids uuid[], ks text[]) returns void
    language sql as $$
    delete from {schema}.idempotency r using unnest(grps, ids, ks) as gone(grp, id, k)
    where gone.k is not null and r.grp = gone.grp and r.key = gone.k and r.id = gone.id
$$;

-- Removes what ended long ago, and what was admitted and whose lease ended long ago.
create function {schema}.inbox_purge(older bigint, most bigint) returns bigint
    language plpgsql set enable_seqscan = off set plan_cache_mode = force_generic_plan as $$
declare
    pages constant bigint := 64;
    age constant interval := older * interval '1 microsecond';
    left_over bigint := most;
    gone record;
    first_page bigint;
    looked timestamptz;
    began constant timestamptz := clock_timestamp();
    before constant timestamptz := began - age;
begin
    with old as (
        select i.grp, i.id from {schema}.inbox i
        where i.state = 0 and i.place is null and i.at <= before
        order by i.at
        limit left_over
        for update skip locked
    ), removed as (
        delete from {schema}.inbox i using old
        where i.grp = old.grp and i.id = old.id
        returning i.grp, i.id, i.idempotency_key
    )
    select count(*) as n, array_agg(grp) as grps, array_agg(id) as ids, array_agg(idempotency_key) as ks
    into gone from removed;
    perform {schema}.inbox_free(gone.grps, gone.ids, gone.ks);
    left_over := left_over - gone.n;

    if not exists (select from {schema}.inbox_file f where f.one and f.file = pg_relation_filenode('{schema}.inbox')) then
        -- The first purge, or the first after the table was rewritten.
        delete from {schema}.inbox_stretch;
        insert into {schema}.inbox_file (file) values (pg_relation_filenode('{schema}.inbox'))
        on conflict (one) do update set file = excluded.file;
    end if;
    insert into {schema}.inbox_stretch (page, oldest)
    select page, '-infinity' from generate_series(
        coalesce((select max(s.page) + pages from {schema}.inbox_stretch s), 0),
        pg_relation_size('{schema}.inbox') / current_setting('block_size')::bigint,
        pages) as page
    on conflict do nothing;
    -- A call looks for two seconds at most; the next one goes on where it has stopped.
    while left_over > 0 and clock_timestamp() < began + interval '2 seconds' loop
        select s.page into first_page from {schema}.inbox_stretch s
        where s.oldest <= before
        order by s.oldest
        limit 1
        for update skip locked;
        exit when not found;
        looked := clock_timestamp();
        with old as (
            select i.grp, i.id from {schema}.inbox i
            where i.ctid >= format('(%s,0)', first_page)::tid and i.ctid < format('(%s,0)', first_page + pages)::tid
                and i.state in (2, 4) and i.queue is null and i.at <= before
            limit left_over
            for update skip locked
        ), removed as (
            delete from {schema}.inbox i using old
            where i.grp = old.grp and i.id = old.id
            returning i.grp, i.id, i.idempotency_key
        )
        select count(*) as n, array_agg(grp) as grps, array_agg(id) as ids, array_agg(idempotency_key) as ks
        into gone from removed;
        perform {schema}.inbox_free(gone.grps, gone.ids, gone.ks);
        left_over := left_over - gone.n;
        if left_over > 0 then
            update {schema}.inbox_stretch s
            set oldest = least(looked, (
                select min(i.at) from {schema}.inbox i
                where i.ctid >= format('(%s,0)', first_page)::tid
                    and i.ctid < format('(%s,0)', first_page + pages)::tid
                    and i.state in (2, 4) and i.queue is null and i.at > before))
            where s.page = first_page;
        end if;
    end loop;
    return most - left_over;
end $$;

-- Buries messages of groups.
create function {schema}.inbox_bury(
    grps text[], ids uuid[], topics text[], msg_keys text[], hashes bigint[], ks text[], owners uuid[], epochs bigint[],
    occurred timestamptz[], ctypes text[], heads text[], bodies bytea[], added text[], wait integer
) returns bigint[] language plpgsql set enable_seqscan = off set plan_cache_mode = force_generic_plan set lock_timeout = 0 as $$
declare
    answers bigint[] := array_fill(null::bigint, array[cardinality(ids)]);
    n integer;
    r record;
    letter uuid;
begin
    perform set_config('lock_timeout', wait::text, true);
    for n in select a.n from unnest(ids, grps) with ordinality as a(id, grp, n) order by a.id, a.grp, a.n loop
        begin
            perform from {schema}.inbox i
            where i.grp = grps[n] and i.id = ids[n] and i.state = 0 and i.owner = owners[n] and i.epoch = epochs[n]
            for update;
        exception when lock_not_available or deadlock_detected then
            answers[n] := 1000000;
            perform set_config('lock_timeout', least(wait, 10)::text, true);
        end;
    end loop;
    for n in 1 .. cardinality(ids) loop
        continue when answers[n] is not null;
        begin
            answers[n] := {schema}.inbox_end_one(
                grps[n], ids[n], topics[n], hashes[n], ks[n], owners[n], epochs[n], 3::smallint);
            continue when answers[n] <> -1;
            select coalesce(i.rounds, 1) as rounds, i.dead_letter as previous, coalesce(i.redrives, 0) as redrives,
                {schema}.failures_append(i.failures, added[n]::jsonb) as failures
            into r from {schema}.inbox i where i.grp = grps[n] and i.id = ids[n];
            insert into {schema}.dead_letter (
                origin, id, topic, key, occurred_at, content_type, headers, payload, failures, rounds, redrives, previous)
            values (grps[n], ids[n], topics[n], msg_keys[n], occurred[n], ctypes[n], heads[n], bodies[n],
                r.failures, r.rounds, r.redrives, r.previous)
            returning dead_letter_id into letter;
            update {schema}.inbox i
            set dead_letter = letter, rounds = r.rounds, failures = r.failures,
                epoch = coalesce(i.epoch, 0), key_hash = coalesce(i.key_hash, hashes[n]),
                idempotency_key = coalesce(i.idempotency_key, ks[n])
            where i.grp = grps[n] and i.id = ids[n];
        exception when lock_not_available or deadlock_detected then
            answers[n] := 1000000;
            perform set_config('lock_timeout', least(wait, 10)::text, true);
        end;
    end loop;
    return answers;
end $$;

-- Redrives one dead letter: -1 now, -2 not found, -3 closed, -6 superseded, -7 too old, -8 redriven often enough.
create function {schema}.dead_letter_redrive_one(letter uuid, who text, cap integer, max_age bigint, body bytea)
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
            and body is not null
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
    update {schema}.dead_letter l set redriven_by = who, redriven_at = clock_timestamp() where l.n = d.n;
    return -1;
end $$;

create function {schema}.dead_letter_redrive(letters uuid[], who text, cap integer, max_age bigint, body bytea)
    returns bigint[] language plpgsql set enable_seqscan = off set plan_cache_mode = force_generic_plan set lock_timeout = 0 as $$
declare
    answers bigint[] := array_fill(null::bigint, array[cardinality(letters)]);
    n integer;
begin
    perform set_config('lock_timeout', '5000', true);
    for n in select a.n from unnest(letters) with ordinality as a(letter, n) order by a.letter, a.n loop
        answers[n] := {schema}.dead_letter_redrive_one(letters[n], who, cap, max_age, body);
    end loop;
    return answers;
end $$;

-- Removes old dead letters, and the rows that are dead by them.
create function {schema}.dead_letter_purge(older bigint, most bigint) returns bigint
    language plpgsql set enable_seqscan = off set plan_cache_mode = force_generic_plan as $$
declare
    purged bigint;
    g text;
    before constant timestamptz := clock_timestamp() - older * interval '1 microsecond';
begin
    -- A dead row that its key has not been looked at after must stay until that was done.
    for g in select distinct i.grp from {schema}.inbox i where i.queue = 3 order by i.grp loop
        if pg_try_advisory_xact_lock({schema}.inbox_group_lock(g)) then
            perform {schema}.inbox_settle(g);
        end if;
    end loop;
    with old as (
        select l.n, l.origin, l.id, l.dead_letter_id from {schema}.dead_letter l
        where l.buried_at <= before
            and (select 1 from {schema}.inbox i
                where i.grp = l.origin and i.id = l.id and i.dead_letter = l.dead_letter_id and i.queue = 3) is null
        order by l.buried_at, l.n
        limit most
        for update skip locked
    ), removed as (
        delete from {schema}.dead_letter l using old where l.n = old.n returning old.origin, old.id, old.dead_letter_id
    ), rows as (
        delete from {schema}.inbox i using removed
        where i.grp = removed.origin and i.id = removed.id and i.state = 3 and i.dead_letter = removed.dead_letter_id
    )
    select count(*) into purged from removed;
    return purged;
end $$;

-- In how many microseconds a parked row is due; null when it waits behind another.
create function {schema}.inbox_due_in(i {schema}.inbox) returns bigint
    language sql as $$
    select case
        when i.state <> 1 or i.queue = 2 then null
        when i.key_hash is null or i.queue = 1 then greatest(0, {schema}.microseconds(i.at - clock_timestamp()))
        when {schema}.inbox_is_behind(i.grp, i.key_hash, i.place) then null
        when exists (select from {schema}.inbox r
            where r.grp = i.grp and r.key_hash = i.key_hash and r.state = 0 and r.place is not null) then null
        when {schema}.inbox_reserved(i.grp, i.idempotency_key, i.id) = 2 then null
        else greatest(0, {schema}.microseconds(i.at - clock_timestamp()))
    end
$$;
