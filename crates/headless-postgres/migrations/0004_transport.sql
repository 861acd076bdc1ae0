-- The transport: a log for each part of a topic, and where each group is in it.
--
-- A part is a partition of an ordered topic, or one of a few into which an unordered topic is spread. Each has places
-- without a gap. A sender locks the row of each part that it writes to until it commits, so that places become visible in
-- their order: whoever sees a place has seen all before it, and a position in a part needs no look back.
--
-- Of what a group was given, only what is unsettled is kept (`group_delivery`). What lies before `group_part.reached` and
-- is in no delivery is settled. So an ack takes something out of a delivery and touches no row of the log.
--
-- The functions of the hot path keep to generic plans: a table in eight parts takes longer to plan for than to read.
--
-- Locks are taken in this order, and those of one table by key: consumer_group, topic_log_state, group_member, group_part,
-- group_delivery; and topic_part before group_part. A step of a member waits for no topic_part, no group_part and no
-- group_delivery.

create table {schema}.topic (
    id integer generated always as identity primary key,
    name text not null unique,
    -- Null: unordered.
    partitions smallint check (partitions between 1 and 1024),
    required boolean not null default false
);

create table {schema}.topic_part (
    id integer generated always as identity primary key,
    topic integer not null references {schema}.topic,
    -- The partition of an ordered topic. Of an unordered one: 0 to 3 for priority 0, then one for each priority above.
    number smallint not null,
    priority smallint not null default 0,
    -- The next place.
    next bigint not null default 0,
    -- Whether it has ever had a message that some group may have to pass over: one that expires, or that was delayed.
    uneven boolean not null default false,
    unique (topic, number)
) with (fillfactor = 20);

-- The messages. Eight tables that are written one after the other and emptied as wholes, so that nothing is ever deleted
-- row by row: a segment of the log is in the table of its number modulo eight.
create table {schema}.topic_log (
    slot smallint not null,
    part integer not null,
    place bigint not null,
    occurred_at timestamptz not null,
    expires_at timestamptz,
    -- Groups that were declared later do not get it: it was sent before them, and delayed.
    born bigint,
    -- Null: of a producer that knows nothing of our ids.
    id uuid,
    key text,
    content_type text,
    headers text,
    payload bytea not null
) partition by list (slot);
create table {schema}.topic_log_0 partition of {schema}.topic_log (primary key (part, place)) for values in (0);
create table {schema}.topic_log_1 partition of {schema}.topic_log (primary key (part, place)) for values in (1);
create table {schema}.topic_log_2 partition of {schema}.topic_log (primary key (part, place)) for values in (2);
create table {schema}.topic_log_3 partition of {schema}.topic_log (primary key (part, place)) for values in (3);
create table {schema}.topic_log_4 partition of {schema}.topic_log (primary key (part, place)) for values in (4);
create table {schema}.topic_log_5 partition of {schema}.topic_log (primary key (part, place)) for values in (5);
create table {schema}.topic_log_6 partition of {schema}.topic_log (primary key (part, place)) for values in (6);
create table {schema}.topic_log_7 partition of {schema}.topic_log (primary key (part, place)) for values in (7);

create table {schema}.topic_segment (
    id bigint primary key,
    opened_at timestamptz not null default clock_timestamp(),
    -- How many messages had been sent before it.
    sent_before bigint not null,
    closed_at timestamptz,
    -- No transaction from here on writes into it. Known only after the closing was committed.
    fence xid8
);
insert into {schema}.topic_segment (id, sent_before) values (0, 0);

-- Which segments there are: the hot part of `topic_segment`, in one row.
create table {schema}.topic_log_state (
    one boolean primary key default true check (one),
    oldest bigint not null default 0,
    current bigint not null default 0
);
insert into {schema}.topic_log_state default values;

-- Messages before their time.
create table {schema}.topic_delayed (
    topic integer not null,
    due timestamptz not null,
    number bigint generated always as identity,
    part integer not null,
    occurred_at timestamptz not null,
    expires_at timestamptz,
    born bigint not null,
    id uuid,
    key text,
    content_type text,
    headers text,
    payload bytea not null,
    primary key (topic, due, number)
);

-- A process that owns groups, alive until then.
create table {schema}.group_instance (
    id uuid primary key,
    until timestamptz not null
);

create table {schema}.consumer_group (
    id integer generated always as identity primary key,
    name text not null unique,
    -- The process that it ends with.
    instance uuid
);

-- In which order groups were declared. The first number is used up, so that `last_value` is one that was given.
create sequence {schema}.group_born;
select nextval('{schema}.group_born');

create table {schema}.group_topic (
    topic integer not null,
    grp integer not null,
    -- 0: it begins with the oldest, so nothing was sent before it.
    born bigint not null,
    primary key (topic, grp)
);
create index group_topic_grp on {schema}.group_topic (grp);

create table {schema}.group_part (
    grp integer not null,
    part integer not null,
    topic integer not null,
    -- Everything before this place was handed out or passed over.
    reached bigint not null,
    -- No place from `reached` on is in an earlier segment.
    segment bigint not null,
    -- Nothing that was handed out comes back before this. Of an ordered topic: when its first requeued message does.
    next_due timestamptz,
    -- Of an ordered topic: the member that has it, the number of its having it, and the member that is to have it.
    holder uuid,
    hold bigint,
    wanted uuid,
    primary key (grp, part)
) with (fillfactor = 20);

create sequence {schema}.group_hold;

create table {schema}.group_member (
    id uuid primary key,
    grp integer not null,
    owner uuid not null,
    topics integer[] not null,
    ordered boolean not null,
    visibility interval not null,
    until timestamptz not null,
    -- Whether it takes part in sharing the partitions.
    live boolean not null default true,
    -- Steps with a lower number than this have been given up by their member.
    step bigint not null default 0
) with (fillfactor = 50);
create index group_member_grp on {schema}.group_member (grp);

create sequence {schema}.delivery_epoch;

-- What was handed out and is unsettled: of one member, or of none once it came back.
create table {schema}.group_delivery (
    grp integer not null,
    part integer not null,
    epoch bigint not null,
    -- Some deliveries of an epoch may have been extended and others not.
    piece bigint not null default 0,
    -- Null: it came back.
    member uuid,
    -- It may be handed out again from then on. Infinite where the hold on the partition says so instead.
    until timestamptz not null,
    segment bigint not null,
    -- How often these were handed out.
    deliveries integer not null,
    places int8multirange not null,
    primary key (grp, part, epoch, piece)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
-- For what is due: a few of very many, and the time of the first.
create index group_delivery_until on {schema}.group_delivery (grp, part, until);

-- The id of a message whose producer gave it none: a UUID of version 8 over where it is in which store.
create function {schema}.foreign_id(topic text, number smallint, place bigint) returns uuid
    language sql stable
    return (
        select (substr(h, 1, 12) || '8' || substr(h, 14, 3) || '8' || substr(h, 18, 15))::uuid
        from {schema}.store s, md5(s.id::text || ' ' || topic || ' ' || number || ' ' || place) h
    );

-- Declares topics and groups, all or nothing. Answers what stands in the way of it: a topic that is declared otherwise, or
-- that is unknown (`known` is null).
create function {schema}.transport_declare(
    p_topics text[], p_partitions smallint[], p_required boolean[],
    p_groups text[], p_of text[], p_oldest boolean[], p_own boolean[],
    p_instance uuid, p_lease interval
) returns table (topic text, known smallint, is_known boolean) language plpgsql as $$
#variable_conflict use_column
declare
    v_topic {schema}.topic%rowtype;
    v_grp integer;
    v_oldest bigint;
begin
    -- One at a time. Declaring is rare, and two that declare the same in another order would wait for each other.
    perform pg_advisory_xact_lock(hashtextextended('{schema} declare', 0));
    perform {schema}.group_sweep();

    return query
        select asked.name, t.partitions, true
        from unnest(p_topics, p_partitions) asked(name, partitions)
        join {schema}.topic t on t.name = asked.name
        where t.partitions is distinct from asked.partitions
        limit 1;
    if found then
        return;
    end if;
    return query
        select asked.name, null::smallint, false
        from unnest(p_of) asked(name)
        where asked.name <> all (p_topics)
          and not exists (select from {schema}.topic t where t.name = asked.name)
        limit 1;
    if found then
        return;
    end if;

    for i in 1 .. coalesce(array_length(p_topics, 1), 0) loop
        select * into v_topic from {schema}.topic t where t.name = p_topics[i];
        if not found then
            insert into {schema}.topic (name, partitions, required)
            values (p_topics[i], p_partitions[i], p_required[i])
            returning * into v_topic;
            insert into {schema}.topic_part (topic, number, priority)
            select v_topic.id, n, case when v_topic.partitions is null then greatest(n - 3, 0) else 0 end
            from generate_series(0, coalesce(v_topic.partitions - 1, 12)) n;
        elsif p_required[i] and not v_topic.required then
            update {schema}.topic t set required = true where t.id = v_topic.id;
        end if;
    end loop;

    for i in 1 .. coalesce(array_length(p_groups, 1), 0) loop
        select t.* into v_topic from {schema}.topic t where t.name = p_of[i];
        -- The lock keeps it from being removed half-way.
        select g.id into v_grp from {schema}.consumer_group g where g.name = p_groups[i] for update;
        if not found then
            insert into {schema}.consumer_group (name, instance)
            values (p_groups[i], case when p_own[i] then p_instance end)
            returning id into v_grp;
            if p_own[i] then
                insert into {schema}.group_instance as i (id, until)
                values (p_instance, clock_timestamp() + p_lease)
                on conflict (id) do update set until = excluded.until;
            end if;
        end if;
        insert into {schema}.group_topic (topic, grp, born)
        values (v_topic.id, v_grp, case when p_oldest[i] then 0 else nextval('{schema}.group_born') end)
        on conflict do nothing;
        continue when not found;

        -- What is to be read must not be dropped meanwhile.
        select s.oldest into v_oldest from {schema}.topic_log_state s for share;
        insert into {schema}.group_part (grp, part, topic, reached, segment)
        select v_grp, p.id, p.topic,
            case when p_oldest[i]
                then coalesce((select min(l.place) from {schema}.topic_log l where l.part = p.id), p.next)
                else p.next end,
            v_oldest
        from {schema}.topic_part p
        where p.topic = v_topic.id;
    end loop;
end
$$;

-- Sends messages, all or none of each topic. `p_topics` are the topics, `p_parts` the parts with how many messages go
-- to each, and the rest are the columns of the messages, each with its part, the index of that in `p_parts` and its rank
-- there; null for a delayed one. Answers for topics that did not get theirs: 1 when no group takes it, 2 when one was
-- required, 3 when there is no such topic any more.
create function {schema}.transport_send(
    p_topics integer[], p_parts integer[], p_counts bigint[], p_uneven boolean[],
    m_part integer[], m_which integer[], m_rank bigint[], m_delay bigint[],
    m_id uuid[], m_key text[], m_occurred_at timestamptz[], m_content_type text[], m_headers text[],
    m_payload bytea[], m_expires_at timestamptz[]
) returns table (topic integer, answer smallint) language plpgsql set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_column
declare
    v_unrouted integer[];
    v_base bigint;
    v_bases bigint[];
    v_born bigint;
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        -- It would write to the segment that its snapshot shows, which may be closed or emptied by now.
        raise exception 'messages are sent in read committed transactions alone' using errcode = '25001';
    end if;
    -- A group whose declaration has returned is seen here: every statement sees what was committed before it.
    select array_agg(asked.id) into v_unrouted
    from unnest(p_topics) asked(id)
    where not exists (select from {schema}.group_topic g where g.topic = asked.id);

    -- Parts come in the order of their ids, so that two senders do not wait for each other. This gives the transaction
    -- its id too, and it must have that before it looks for the current segment: see `transport_maintain`.
    for i in 1 .. coalesce(array_length(p_parts, 1), 0) loop
        update {schema}.topic_part p
        set next = p.next + p_counts[i], uneven = p.uneven or p_uneven[i]
        where p.id = p_parts[i] and (v_unrouted is null or p.topic <> all (v_unrouted))
        returning p.next - p_counts[i] into v_base;
        v_bases[i] := v_base;
    end loop;

    insert into {schema}.topic_log
        (slot, part, place, occurred_at, expires_at, id, key, content_type, headers, payload)
    select s.current % 8, m.part, v_bases[m.which] + m.rank,
        m.occurred_at, m.expires_at, m.id, m.key, m.content_type, m.headers, m.payload
    from {schema}.topic_log_state s,
        unnest(m_part, m_which, m_rank, m_id, m_key, m_occurred_at, m_content_type, m_headers, m_payload, m_expires_at)
            m(part, which, rank, id, key, occurred_at, content_type, headers, payload, expires_at)
    where v_bases[m.which] is not null;

    if m_delay is not null then
        select s.last_value into v_born from {schema}.group_born s;
        insert into {schema}.topic_delayed
            (topic, due, part, occurred_at, expires_at, born, id, key, content_type, headers, payload)
        select p.topic, clock_timestamp() + m.delay * interval '1 microsecond', m.part,
            m.occurred_at, m.expires_at, v_born, m.id, m.key, m.content_type, m.headers, m.payload
        from unnest(m_part, m_delay, m_id, m_key, m_occurred_at, m_content_type, m_headers, m_payload, m_expires_at)
                with ordinality
                m(part, delay, id, key, occurred_at, content_type, headers, payload, expires_at, n)
        join {schema}.topic_part p on p.id = m.part
        where m.delay is not null and (v_unrouted is null or p.topic <> all (v_unrouted))
        order by m.n;
    end if;

    if v_unrouted is not null then
        return query
            select asked.id, case when t.id is null then 3 when t.required then 2 else 1 end::smallint
            from unnest(v_unrouted) asked(id)
            left join {schema}.topic t on t.id = asked.id;
    end if;
end
$$;

-- Sends a message to an unordered topic for a producer that knows nothing of headless. It gets an id from its place.
create function {schema}.send_foreign(p_topic text, p_payload bytea, p_key text default null) returns void
    language plpgsql as $$
declare
    v_topic {schema}.topic%rowtype;
    v_number smallint := floor(random() * 4);
    v_part integer;
    v_place bigint;
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        -- It would write to the segment that its snapshot shows, which may be closed or emptied by now.
        raise exception 'messages are sent in read committed transactions alone' using errcode = '25001';
    end if;
    select * into v_topic from {schema}.topic t where t.name = p_topic;
    if not found then
        raise exception 'topic % was never declared', p_topic using errcode = 'no_data_found';
    end if;
    if v_topic.partitions is not null then
        raise exception 'topic % is ordered: its partitions are computed by the library', p_topic
            using errcode = 'feature_not_supported';
    end if;
    if not exists (select from {schema}.group_topic g where g.topic = v_topic.id) then
        return;
    end if;
    update {schema}.topic_part p set next = p.next + 1
    where p.topic = v_topic.id and p.number = v_number
    returning p.id, p.next - 1 into v_part, v_place;
    insert into {schema}.topic_log (slot, part, place, occurred_at, key, payload)
    select s.current % 8, v_part, v_place, clock_timestamp(), p_key, p_payload
    from {schema}.topic_log_state s;
end
$$;

-- Moves delayed messages of these topics that are due into the log: of each part in the order of their times. Passes over
-- parts that a sender has, and answers whether it did.
create function {schema}.transport_promote(p_topics integer[]) returns boolean language plpgsql as $$
declare
    v_busy boolean := false;
    v_now timestamptz := clock_timestamp();
    v_parts integer[];
    v_part integer;
    v_due {schema}.topic_delayed[];
    v_base bigint;
begin
    select array_agg(distinct d.part order by d.part) into v_parts
    from (
        select t.part from {schema}.topic_delayed t
        where t.topic = any (p_topics) and t.due <= v_now
        order by t.due limit 1000
    ) d;
    foreach v_part in array coalesce(v_parts, '{}') loop
        -- Under the lock of the part and in statements after it, so that nobody else moves any of it.
        perform from {schema}.topic_part p where p.id = v_part for update skip locked;
        if not found then
            v_busy := true;
            continue;
        end if;
        with first as (
            select t.topic, t.due, t.number from {schema}.topic_delayed t
            where t.topic = any (p_topics) and t.due <= v_now and t.part = v_part
            order by t.due, t.number limit 1000
        ), moved as (
            delete from {schema}.topic_delayed t using first f
            where t.topic = f.topic and t.due = f.due and t.number = f.number
            returning t.*
        )
        select array_agg(m::{schema}.topic_delayed order by m.due, m.number) into v_due from moved m;
        continue when v_due is null;

        update {schema}.topic_part p
        set next = p.next + cardinality(v_due), uneven = true
        where p.id = v_part
        returning p.next - cardinality(v_due) into v_base;
        insert into {schema}.topic_log
            (slot, part, place, occurred_at, expires_at, born, id, key, content_type, headers, payload)
        select s.current % 8, v_part, v_base + d.n - 1,
            d.occurred_at, d.expires_at, d.born, d.id, d.key, d.content_type, d.headers, d.payload
        from {schema}.topic_log_state s,
            unnest(v_due) with ordinality
                d(topic, due, number, part, occurred_at, expires_at, born, id, key, content_type, headers, payload, n);
    end loop;
    return v_busy;
end
$$;

-- Ends a group on all its topics.
create function {schema}.group_end(p_grp integer) returns void language plpgsql as $$
begin
    perform from {schema}.consumer_group g where g.id = p_grp for update;
    delete from {schema}.group_topic t where t.grp = p_grp;
    delete from {schema}.group_member m where m.grp = p_grp;
    -- A step that has begun ends first, and a later one finds no part.
    perform from {schema}.group_part p where p.grp = p_grp order by p.part for update;
    delete from {schema}.group_part p where p.grp = p_grp;
    delete from {schema}.group_delivery d where d.grp = p_grp;
    delete from {schema}.consumer_group g where g.id = p_grp;
end
$$;

-- Ends the groups of processes that are gone: whose own lease has ended, and that of every member.
create function {schema}.group_sweep() returns void language plpgsql as $$
declare
    v_now timestamptz := clock_timestamp();
    v_instance uuid;
    v_grp integer;
begin
    for v_instance in
        select i.id from {schema}.group_instance i
        where i.until <= v_now
          and not exists (
              select from {schema}.consumer_group g
              join {schema}.group_member m on m.grp = g.id
              where g.instance = i.id and m.until > v_now
          )
        for update of i skip locked
    loop
        perform {schema}.instance_end(v_instance);
    end loop;
end
$$;

-- Ends the groups of one process.
create function {schema}.instance_end(p_instance uuid) returns void language plpgsql as $$
declare
    v_grp integer;
begin
    for v_grp in select g.id from {schema}.consumer_group g where g.instance = p_instance order by g.id loop
        perform {schema}.group_end(v_grp);
    end loop;
    delete from {schema}.group_instance i where i.id = p_instance;
end
$$;

-- Ends a group by its name.
create function {schema}.group_remove(p_group text) returns void language plpgsql as $$
declare
    v_grp integer;
begin
    select g.id into v_grp from {schema}.consumer_group g where g.name = p_group;
    if found then
        perform {schema}.group_end(v_grp);
    end if;
end
$$;

-- How many messages wait for a group or are unsettled; null for an unknown one.
create function {schema}.group_lag(p_group text) returns bigint language plpgsql as $$
declare
    v_grp integer;
begin
    perform {schema}.group_sweep();
    select g.id into v_grp from {schema}.consumer_group g where g.name = p_group;
    if not found then
        return null;
    end if;
    return (
        select coalesce(sum(p.next - g.reached), 0)
        from {schema}.group_part g join {schema}.topic_part p on p.id = g.part
        where g.grp = v_grp
    ) + (
        select coalesce(sum(upper(r) - lower(r)), 0)
        from {schema}.group_delivery d, unnest(d.places) r
        where d.grp = v_grp
    ) + (
        select count(*)
        from {schema}.group_topic g join {schema}.topic_delayed d on d.topic = g.topic
        where g.grp = v_grp and g.born <= d.born
    );
end
$$;

-- Decides anew which live member is to have which partition of each ordered topic of a group. The caller has the lock of
-- the group.
--
-- Rendezvous hashing with a bound: a partition goes to the member with the highest score for it among those that still
-- have room, and the members' shares differ by one at most.
create function {schema}.group_assign(p_grp integer) returns void language plpgsql as $$
declare
    v_topic record;
    v_part record;
    v_members uuid[];
    v_loads integer[];
    v_share integer;
    v_larger integer;
    v_best integer;
begin
    for v_topic in
        select t.id, t.partitions from {schema}.group_topic g join {schema}.topic t on t.id = g.topic
        where g.grp = p_grp and t.partitions is not null
        order by t.id
    loop
        select coalesce(array_agg(m.id order by m.id), '{}') into v_members
        from {schema}.group_member m
        where m.grp = p_grp and m.live and v_topic.id = any (m.topics);
        if cardinality(v_members) = 0 then
            update {schema}.group_part p set wanted = null
            where p.grp = p_grp and p.topic = v_topic.id and p.wanted is not null;
            continue;
        end if;
        v_share := v_topic.partitions / cardinality(v_members);
        v_larger := v_topic.partitions % cardinality(v_members);
        v_loads := array_fill(0, array[cardinality(v_members)]);
        for v_part in
            select p.part, p.wanted from {schema}.group_part p
            where p.grp = p_grp and p.topic = v_topic.id
            order by p.part
        loop
            select m.n into v_best
            from unnest(v_members) with ordinality m(id, n)
            where v_loads[m.n] < v_share or (v_loads[m.n] = v_share and v_larger > 0)
            order by uuid_hash_extended(m.id, v_part.part) desc
            limit 1;
            if v_loads[v_best] = v_share then
                v_larger := v_larger - 1;
            end if;
            v_loads[v_best] := v_loads[v_best] + 1;
            if v_part.wanted is distinct from v_members[v_best] then
                update {schema}.group_part p set wanted = v_members[v_best]
                where p.grp = p_grp and p.part = v_part.part;
            end if;
        end loop;
    end loop;
end
$$;

-- Gives back what a member has of these parts: its partitions, and in place what it has not settled. The caller has the
-- locks of the parts.
create function {schema}.member_give_back(p_grp integer, p_member uuid, p_parts integer[]) returns void
    language plpgsql as $$
declare
    v_now timestamptz := clock_timestamp();
    v_part integer;
begin
    -- In the order in which a settlement takes them.
    perform from {schema}.group_delivery d
    where d.grp = p_grp and d.part = any (p_parts) and d.member = p_member
    order by d.part, d.epoch, d.piece
    for update;
    for v_part in
        update {schema}.group_delivery d set member = null, until = v_now
        where d.grp = p_grp and d.part = any (p_parts) and d.member = p_member
        returning d.part
    loop
        update {schema}.group_part p set next_due = v_now
        where p.grp = p_grp and p.part = v_part and (p.next_due is null or p.next_due > v_now);
    end loop;
    update {schema}.group_part p set holder = null
    where p.grp = p_grp and p.part = any (p_parts) and p.holder = p_member;
end
$$;

-- The parts of a member's topics, locked.
create function {schema}.member_lock_parts(p_grp integer, p_topics integer[]) returns integer[]
    language plpgsql as $$
begin
    return array(
        select p.part from {schema}.group_part p
        where p.grp = p_grp and p.topic = any (p_topics)
        order by p.part
        for update
    );
end
$$;

-- Ends the hold of members that have not received for their visibility time, and shares their partitions among the rest.
create function {schema}.group_lapse(p_grp integer) returns void language plpgsql as $$
declare
    v_member {schema}.group_member%rowtype;
    v_any boolean := false;
begin
    perform from {schema}.consumer_group g where g.id = p_grp for update;
    for v_member in
        update {schema}.group_member m set live = false
        where m.grp = p_grp and m.live and m.until <= clock_timestamp()
        returning m.*
    loop
        v_any := true;
        if v_member.ordered then
            perform {schema}.member_lock_parts(p_grp, v_member.topics);
            -- Of unordered topics each delivery has a time of its own.
            perform {schema}.member_give_back(p_grp, v_member.id, array(
                select p.part from {schema}.group_part p where p.grp = p_grp and p.holder = v_member.id
            ));
        end if;
    end loop;
    if v_any then
        perform {schema}.group_assign(p_grp);
    end if;
end
$$;

-- Joins a group, or joins it again under the same session (`p_grp` is the group of the first time then). Answers one row
-- for each part of the topics; or a single one with 1 for an unknown topic, 2 for an unknown group, 3 for a group that is
-- not on the topic.
create function {schema}.member_join(
    p_session uuid, p_group text, p_grp integer, p_topics text[], p_owner uuid, p_visibility interval
) returns table (answer smallint, grp integer, topic text, part integer, number smallint, ordered boolean)
language plpgsql as $$
#variable_conflict use_column
declare
    v_grp integer;
    v_topics integer[];
    v_ordered boolean;
    v_name text;
begin
    perform {schema}.group_sweep();
    select n.name into v_name from unnest(p_topics) n(name)
    where not exists (select from {schema}.topic t where t.name = n.name)
    limit 1;
    if found then
        return query select 1::smallint, null::integer, v_name, null::integer, null::smallint, null::boolean;
        return;
    end if;
    select g.id into v_grp from {schema}.consumer_group g
    where g.name = p_group and (p_grp is null or g.id = p_grp)
    for update;
    if not found then
        return query select 2::smallint, null::integer, null::text, null::integer, null::smallint, null::boolean;
        return;
    end if;
    select n.name into v_name from unnest(p_topics) n(name) join {schema}.topic t on t.name = n.name
    where not exists (select from {schema}.group_topic g where g.topic = t.id and g.grp = v_grp)
    limit 1;
    if found then
        return query select 3::smallint, null::integer, v_name, null::integer, null::smallint, null::boolean;
        return;
    end if;

    select array_agg(t.id order by t.id), bool_or(t.partitions is not null) into v_topics, v_ordered
    from {schema}.topic t where t.name = any (p_topics);
    insert into {schema}.group_member as m (id, grp, owner, topics, ordered, visibility, until)
    values (p_session, v_grp, p_owner, v_topics, v_ordered, p_visibility, clock_timestamp() + p_visibility)
    on conflict (id) do update set live = true, until = excluded.until;
    if v_ordered then
        perform {schema}.group_lapse(v_grp);
        perform {schema}.group_assign(v_grp);
    end if;
    return query
        select 0::smallint, v_grp, t.name, p.id, p.number, t.partitions is not null
        from {schema}.topic t join {schema}.topic_part p on p.topic = t.id
        where t.id = any (v_topics);
end
$$;

-- Leaves a group: what is unsettled comes back at once, in place, and partitions move.
create function {schema}.member_leave(p_session uuid) returns void language plpgsql as $$
declare
    v_member {schema}.group_member%rowtype;
begin
    select m.* into v_member from {schema}.group_member m where m.id = p_session;
    if not found then
        return;
    end if;
    perform from {schema}.consumer_group g where g.id = v_member.grp for update;
    delete from {schema}.group_member m where m.id = p_session;
    perform {schema}.member_give_back(
        v_member.grp, p_session, {schema}.member_lock_parts(v_member.grp, v_member.topics)
    );
    if v_member.ordered then
        perform {schema}.group_assign(v_member.grp);
    end if;
end
$$;

-- Lets partitions go that their member has reported as revoked.
create function {schema}.member_release(p_session uuid, p_grp integer, p_parts integer[], p_holds bigint[]) returns void
    language plpgsql as $$
begin
    perform from {schema}.group_part p where p.grp = p_grp and p.part = any (p_parts) order by p.part for update;
    perform {schema}.member_give_back(p_grp, p_session, array(
        select p.part from {schema}.group_part p join unnest(p_parts, p_holds) r(part, hold) using (part)
        where p.grp = p_grp and p.holder = p_session and p.hold = r.hold
    ));
end
$$;

-- Gives back what the server believes to be with a member, and the member does not know: the answer of a step was lost.
-- Steps with a lower number than this one, which may still be under way, come to nothing.
create function {schema}.member_recover(p_session uuid, p_grp integer, p_step bigint, p_known bigint[]) returns void
    language plpgsql as $$
declare
    v_now timestamptz := clock_timestamp();
    v_member {schema}.group_member%rowtype;
    v_part integer;
begin
    update {schema}.group_member m set step = greatest(m.step, p_step) where m.id = p_session returning m.* into v_member;
    if not found then
        return;
    end if;
    perform {schema}.member_lock_parts(p_grp, v_member.topics);
    perform from {schema}.group_delivery d
    where d.grp = p_grp and d.member = p_session and d.epoch <> all (p_known)
    order by d.part, d.epoch, d.piece
    for update;
    for v_part in
        update {schema}.group_delivery d set member = null, until = v_now
        where d.grp = p_grp and d.member = p_session and d.epoch <> all (p_known)
        returning d.part
    loop
        update {schema}.group_part p set next_due = v_now
        where p.grp = p_grp and p.part = v_part and (p.next_due is null or p.next_due > v_now);
    end loop;
end
$$;

-- What a step of a member returns: deliveries (kind 1), and one row about the member (kind 0) with its answer in
-- `deliveries`, the microseconds until something changes by itself in `place`, and what it holds in the last columns, if
-- that is not what it believes.
create type {schema}.stepped as (
    kind smallint,
    part integer,
    epoch bigint,
    place bigint,
    deliveries integer,
    id uuid,
    topic text,
    key text,
    occurred_at timestamptz,
    content_type text,
    headers text,
    payload bytea,
    parts integer[],
    holds bigint[],
    leaving integer[]
);

-- Hands out again what came back to a part, to its holder if it has one. The caller has the lock of the part.
create function {schema}.part_again(
    p_session uuid, p_grp integer, p_part integer, p_topic text, p_number smallint, p_ordered boolean, p_take integer,
    p_now timestamptz, p_until timestamptz
) returns setof {schema}.stepped
    -- Also before anybody has counted the rows: few of very many are found one by one, through an index.
    language plpgsql set enable_hashjoin = off set enable_mergejoin = off set enable_bitmapscan = off
    set enable_sort = off set enable_seqscan = off as $$
declare
    v_places bigint[];
    v_epochs bigint[];
    v_pieces bigint[];
    v_counts integer[];
    v_segments bigint[];
begin
    -- One that is being settled now is passed over.
    if p_ordered then
        with back as (
            select d.epoch, d.piece, d.until, d.segment, d.deliveries, d.places
            from {schema}.group_delivery d
            where d.grp = p_grp and d.part = p_part and d.member is null
            for update skip locked
        ), each as (
            select b.*, place,
                -- Everything waits for the first that is not due.
                bool_and(b.until <= p_now) over (order by place) as due
            from back b, unnest(b.places) r, generate_series(lower(r), upper(r) - 1) place
        ), first as (
            select e.* from each e where e.due order by e.place limit p_take
        )
        select array_agg(f.place order by f.place), array_agg(f.epoch order by f.place), array_agg(f.piece order by f.place),
            array_agg(f.deliveries order by f.place), array_agg(f.segment order by f.place)
        into v_places, v_epochs, v_pieces, v_counts, v_segments
        from first f;
    else
        -- As many as are asked for, those first that came back first: there may be very many.
        with back as (
            select d.epoch, d.piece, d.until, d.segment, d.deliveries, d.places
            from {schema}.group_delivery d
            where d.grp = p_grp and d.part = p_part and d.until <= p_now
            order by d.until
            limit p_take
            for update skip locked
        ), first as (
            select b.*, place
            from back b, unnest(b.places) r, generate_series(lower(r), upper(r) - 1) place
            order by b.until, place
            limit p_take
        )
        select array_agg(f.place order by f.place), array_agg(f.epoch order by f.place), array_agg(f.piece order by f.place),
            array_agg(f.deliveries order by f.place), array_agg(f.segment order by f.place)
        into v_places, v_epochs, v_pieces, v_counts, v_segments
        from first f;
    end if;

    if v_places is not null then
        update {schema}.group_delivery d set places = d.places - t.places
        from (
            select f.epoch, f.piece, range_agg(int8range(f.place, f.place + 1)) as places
            from unnest(v_places, v_epochs, v_pieces) f(place, epoch, piece)
            group by f.epoch, f.piece
        ) t
        where d.grp = p_grp and d.part = p_part and d.epoch = t.epoch and d.piece = t.piece;
        delete from {schema}.group_delivery d
        using (select distinct f.epoch, f.piece from unnest(v_epochs, v_pieces) f(epoch, piece)) f
        where d.grp = p_grp and d.part = p_part and d.epoch = f.epoch and d.piece = f.piece and isempty(d.places);

        -- Those that have expired meanwhile are in no delivery from here on, and so they are settled.
        return query
            with alive as (
                select l.*, f.deliveries, f.segment
                from unnest(v_places, v_counts, v_segments) f(place, deliveries, segment)
                join {schema}.topic_log l on l.slot = f.segment % 8 and l.part = p_part and l.place = f.place
                where l.expires_at is null or l.expires_at > p_now
            ), given as (
                insert into {schema}.group_delivery
                    (grp, part, epoch, member, until, segment, deliveries, places)
                select p_grp, p_part, nextval('{schema}.delivery_epoch'), p_session, p_until, a.segment, a.deliveries + 1,
                    range_agg(int8range(a.place, a.place + 1))
                from alive a
                group by a.segment, a.deliveries
                returning epoch, segment, deliveries
            )
            select 1::smallint, p_part, g.epoch, a.place, g.deliveries,
                coalesce(a.id, {schema}.foreign_id(p_topic, p_number, a.place)), p_topic, a.key, a.occurred_at,
                a.content_type, a.headers, a.payload, null::integer[], null::bigint[], null::integer[]
            from alive a
            join given g on g.segment = a.segment and g.deliveries = a.deliveries + 1
            order by a.place;
    end if;

    update {schema}.group_part p
    -- What a member of an ordered group has is infinite.
    set next_due = nullif((
        select d.until from {schema}.group_delivery d
        where d.grp = p_grp and d.part = p_part
        order by d.until limit 1
    ), 'infinity')
    where p.grp = p_grp and p.part = p_part;
end
$$;

-- A place that was given to a message and is in no segment: the log was tampered with, or is damaged. Going on past it would
-- lose what was there without a word.
create function {schema}.place_is_missing(p_part integer, p_from bigint) returns void language plpgsql as $$
begin
    raise exception 'the log lacks a message of part %, at place % or after it', p_part, p_from
        using errcode = 'data_corrupted';
end
$$;

-- One look of a member for deliveries: renews its hold, then takes over and hands out. Waits for no other transaction,
-- except for the lock of its group where the membership changes.
--
-- `p_max` bounds the deliveries, `p_room` those of unordered topics, `p_prefetch` the unsettled ones of each partition, of
-- which `p_busy` has some (`p_counts`). `p_held` and `p_sum` are the number and sum of the holds that the member knows:
-- numbers of holds rise, so that equal ones are the same holds.
create function {schema}.member_step(
    p_session uuid, p_grp integer, p_step bigint, p_max integer, p_room integer, p_prefetch integer,
    p_busy integer[], p_counts integer[], p_held bigint, p_sum bigint
) returns setof {schema}.stepped language plpgsql set plan_cache_mode = force_generic_plan as $$
declare
    v_now timestamptz := clock_timestamp();
    v_member {schema}.group_member%rowtype;
    v_state {schema}.topic_log_state%rowtype;
    v_group {schema}.group_part%rowtype;
    v_part record;
    v_left integer := p_max;
    v_room integer := p_room;
    v_take integer;
    v_count bigint;
    v_given boolean := false;
    -- Whether something was passed over that another transaction works on.
    v_busy boolean := false;
    -- Whether a sender has a part that something is to be moved into.
    v_sends boolean := false;
    v_wait bigint;
    v_until timestamptz;
    v_epoch bigint;
    v_hold bigint;
    v_held bigint := 0;
    v_sum bigint := 0;
    v_leaving integer[];
    v_free integer[];
    v_parts integer[];
    v_holds bigint[];
    v_places bigint[];
    v_last bigint;
    v_end bigint;
    v_look integer;
    -- How many messages were looked at where some are passed over.
    v_passed integer := 0;
begin
    select m.* into v_member from {schema}.group_member m where m.id = p_session;
    if not found or v_member.step > p_step then
        return query select 0::smallint, null::integer, null::bigint, null::bigint,
            case when v_member.id is null then 1 else 2 end, null::uuid, null::text, null::text, null::timestamptz,
            null::text, null::text, null::bytea, null::integer[], null::bigint[], null::integer[];
        return;
    end if;

    if v_member.ordered and exists (
        select from {schema}.group_member m
        where m.grp = p_grp and m.live and m.until <= v_now and m.id <> p_session
    ) then
        perform {schema}.group_lapse(p_grp);
    end if;
    -- A hold is a tenth longer than the visibility time, so that most steps need not write it.
    if v_member.until < v_now + v_member.visibility or not v_member.live then
        update {schema}.group_member m set until = clock_timestamp() + m.visibility * 1.1
        where m.id = p_session and m.live;
        if not found then
            perform from {schema}.consumer_group g where g.id = p_grp for update;
            update {schema}.group_member m set live = true, until = clock_timestamp() + m.visibility * 1.1
            where m.id = p_session;
            if v_member.ordered then
                perform {schema}.group_assign(p_grp);
            end if;
        end if;
    end if;

    if v_member.ordered then
        select count(*) filter (where p.holder = p_session), coalesce(sum(p.hold) filter (where p.holder = p_session), 0),
            array_agg(p.part) filter (where p.holder = p_session and p.wanted is distinct from p_session),
            array_agg(p.part order by p.part) filter (where p.holder is null)
        into v_held, v_sum, v_leaving, v_free
        from {schema}.group_part p
        where p.grp = p_grp and p.topic = any (v_member.topics) and (p.holder = p_session or p.wanted = p_session);
        if v_free is not null then
            for v_part in
                select p.part from {schema}.group_part p
                where p.grp = p_grp and p.part = any (v_free) and p.holder is null and p.wanted = p_session
                for update skip locked
            loop
                v_hold := nextval('{schema}.group_hold');
                update {schema}.group_part p set holder = p_session, hold = v_hold
                where p.grp = p_grp and p.part = v_part.part;
                v_held := v_held + 1;
                v_sum := v_sum + v_hold;
                v_count := coalesce(v_count, 0) + 1;
            end loop;
            v_busy := coalesce(v_count, 0) < cardinality(v_free);
        end if;
        if v_held <> p_held or v_sum <> p_sum then
            select array_agg(p.part), array_agg(p.hold) into v_parts, v_holds
            from {schema}.group_part p
            where p.grp = p_grp and p.topic = any (v_member.topics) and p.holder = p_session;
            v_parts := coalesce(v_parts, '{}');
            v_holds := coalesce(v_holds, '{}');
        end if;
    end if;

    if p_max > 0 and v_leaving is null then
        if exists (
            select from {schema}.topic_delayed d where d.topic = any (v_member.topics) and d.due <= v_now
        ) then
            v_sends := {schema}.transport_promote(v_member.topics);
        end if;
        select s.* into v_state from {schema}.topic_log_state s;

        for v_part in
            select g.part, t.name, p.number, p.next, p.uneven, t.partitions is not null as ordered, gt.born
            from {schema}.group_part g
            join {schema}.topic_part p on p.id = g.part
            join {schema}.topic t on t.id = g.topic
            join {schema}.group_topic gt on gt.topic = g.topic and gt.grp = g.grp
            where g.grp = p_grp and g.topic = any (v_member.topics)
              and case when t.partitions is null
                  then v_room > 0 and (p.next > g.reached or g.next_due <= v_now)
                  else g.holder = p_session and g.wanted = p_session
                      and case when g.next_due is null then p.next > g.reached else g.next_due <= v_now end
                      and p_prefetch > coalesce(p_counts[array_position(p_busy, g.part)], 0)
                  end
            order by p.priority desc, random()
        loop
            exit when v_left <= 0;
            v_take := case when v_part.ordered
                then least(v_left, p_prefetch - coalesce(p_counts[array_position(p_busy, v_part.part)], 0))
                else least(v_left, v_room) end;
            continue when v_take <= 0;
            select g.* into v_group from {schema}.group_part g
            where g.grp = p_grp and g.part = v_part.part
            for update skip locked;
            if not found then
                v_busy := true;
                continue;
            end if;
            continue when v_part.ordered
                and (v_group.holder is distinct from p_session or v_group.wanted is distinct from p_session);
            v_until := case when v_part.ordered then 'infinity' else v_now + v_member.visibility end;

            if v_group.next_due <= v_now then
                return query select * from {schema}.part_again(
                    p_session, p_grp, v_part.part, v_part.name, v_part.number, v_part.ordered, v_take, v_now, v_until);
                get diagnostics v_count = row_count;
                v_given := v_given or v_count > 0;
                v_left := v_left - v_count;
                v_take := v_take - v_count;
                if not v_part.ordered then
                    v_room := v_room - v_count;
                end if;
                select g.* into v_group from {schema}.group_part g where g.grp = p_grp and g.part = v_part.part;
            end if;
            -- What was not handed out yet waits, in order, for what is to come back.
            continue when v_part.ordered and v_group.next_due is not null;

            if v_group.segment < v_state.oldest then
                v_group.segment := v_state.oldest;
            end if;
            while v_take > 0 and v_group.reached < v_part.next loop
                v_epoch := nextval('{schema}.delivery_epoch');
                -- Of what was sent after the look at the part, nothing is known of whether it is to be passed over.
                -- Where some are passed over, many are looked at for a few.
                v_look := case when v_part.uneven then greatest(v_take, 256) else v_take end;
                v_end := least(v_group.reached + v_look, v_part.next);
                if v_part.uneven then
                    select max(r.place), count(*),
                        (array_agg(r.place order by r.place) filter (where r.wanted))[:v_take + 1]
                    into v_last, v_count, v_places
                    from (
                        select l.place, (l.expires_at is null or l.expires_at > v_now)
                            and (l.born is null or v_part.born <= l.born) as wanted
                        from {schema}.topic_log_state s, {schema}.topic_log l
                        where s.oldest <= v_group.segment and l.slot = v_group.segment % 8
                          and l.part = v_part.part and l.place >= v_group.reached and l.place < v_end
                        order by l.place
                        limit v_look
                    ) r;
                    if v_last >= v_group.reached + v_count then
                        perform {schema}.place_is_missing(v_part.part, v_group.reached);
                    end if;
                    v_passed := v_passed + v_count;
                    if cardinality(v_places) > v_take then
                        -- The rest is for another time.
                        v_last := v_places[v_take + 1] - 1;
                        v_places := v_places[:v_take];
                    end if;
                    v_count := coalesce(cardinality(v_places), 0);
                    if v_count > 0 then
                        return query
                            select 1::smallint, v_part.part, v_epoch, l.place, 1,
                                coalesce(l.id, {schema}.foreign_id(v_part.name, v_part.number, l.place)), v_part.name,
                                l.key, l.occurred_at, l.content_type, l.headers, l.payload,
                                null::integer[], null::bigint[], null::integer[]
                            from {schema}.topic_log l
                            where l.slot = v_group.segment % 8 and l.part = v_part.part and l.place = any (v_places)
                            order by l.place;
                        insert into {schema}.group_delivery
                            (grp, part, epoch, member, until, segment, deliveries, places)
                        select p_grp, v_part.part, v_epoch, p_session, v_until, v_group.segment, 1,
                            range_agg(int8range(r.place, r.place + 1))
                        from unnest(v_places) r(place);
                    end if;
                else
                    return query
                        select 1::smallint, v_part.part, v_epoch, l.place, 1,
                            coalesce(l.id, {schema}.foreign_id(v_part.name, v_part.number, l.place)), v_part.name,
                            l.key, l.occurred_at, l.content_type, l.headers, l.payload,
                            null::integer[], null::bigint[], null::integer[]
                        from {schema}.topic_log_state s, {schema}.topic_log l
                        where s.oldest <= v_group.segment and l.slot = v_group.segment % 8
                          and l.part = v_part.part and l.place >= v_group.reached and l.place < v_end
                        order by l.place
                        limit v_take;
                    get diagnostics v_count = row_count;
                    v_last := v_group.reached + v_count - 1;
                    -- All of them is all of them. Fewer are the first of them, and the rest in later segments.
                    if v_last + 1 < v_end and exists (
                        select from {schema}.topic_log l
                        where l.slot = v_group.segment % 8 and l.part = v_part.part and l.place > v_last and l.place < v_end
                    ) then
                        perform {schema}.place_is_missing(v_part.part, v_group.reached);
                    end if;
                    if v_count > 0 then
                        insert into {schema}.group_delivery
                            (grp, part, epoch, member, until, segment, deliveries, places)
                        values (p_grp, v_part.part, v_epoch, p_session, v_until, v_group.segment, 1,
                            int8multirange(int8range(v_group.reached, v_last + 1)));
                    else
                        v_last := null;
                    end if;
                end if;

                if v_last is null or v_last < v_group.reached then
                    -- Not in this segment: in a later one, since it is there.
                    select s.* into v_state from {schema}.topic_log_state s;
                    if v_group.segment >= v_state.current then
                        perform {schema}.place_is_missing(v_part.part, v_group.reached);
                    end if;
                    v_group.segment := greatest(v_group.segment + 1, v_state.oldest);
                    continue;
                end if;
                v_group.reached := v_last + 1;
                if v_count > 0 then
                    v_given := true;
                    if not v_part.ordered then
                        v_group.next_due := least(v_group.next_due, v_until);
                        v_room := v_room - v_count;
                    end if;
                    v_left := v_left - v_count;
                    v_take := v_take - v_count;
                end if;
                if v_passed >= 10000 then
                    -- What is passed over is bounded too. The next step goes on.
                    v_busy := true;
                    exit;
                end if;
            end loop;
            update {schema}.group_part g
            set reached = v_group.reached, segment = v_group.segment, next_due = v_group.next_due
            where g.grp = p_grp and g.part = v_part.part;
        end loop;
    end if;

    if not v_given and v_leaving is null then
        if v_busy then
            v_wait := 1000;
        elsif v_sends then
            -- A sender's transaction may last: it is not asked for as often.
            v_wait := 50000;
        else
            select extract(epoch from least(
                (
                    select min(p.next_due) from {schema}.group_part p
                    where p_max > 0 and p.grp = p_grp and p.topic = any (v_member.topics)
                      and case when p.holder is null then p.wanted is null and p_room > 0
                          else p.holder = p_session and p.wanted = p_session
                              and p_prefetch > coalesce(p_counts[array_position(p_busy, p.part)], 0)
                          end
                ),
                (
                    select min(d.due) from unnest(v_member.topics) t(id), lateral (
                        select d.due from {schema}.topic_delayed d where d.topic = t.id order by d.due limit 1
                    ) d
                    where p_max > 0
                ),
                (
                    select min(m.until) from {schema}.group_member m
                    where v_member.ordered and m.grp = p_grp and m.live and m.id <> p_session
                )
            ) - clock_timestamp()) * 1000000 into v_wait;
        end if;
    end if;

    -- It may have left, lapsed or given this step up after it began. Whoever did that waits for the locks of the parts, or
    -- has had them before: so it is seen here, or it sees what was done here.
    if not exists (
        select from {schema}.group_member m where m.id = p_session and m.live and m.step <= p_step
    ) then
        raise exception 'the member has gone meanwhile' using errcode = 'HL001';
    end if;
    return query select 0::smallint, null::integer, null::bigint, v_wait, 0, null::uuid, null::text, null::text,
        null::timestamptz, null::text, null::text, null::bytea, v_parts, v_holds, v_leaving;
end
$$;

-- Whether a member has one of these places. A settlement that waited for another call of its member sees the row that this
-- one shortened, and not the one that it made of the rest: what it misses, it looks for again before it calls it lost.
create function {schema}.member_has(
    p_session uuid, p_grp integer, p_part integer, p_epoch bigint, p_places int8multirange
) returns boolean language plpgsql as $$
begin
    return exists (
        select from {schema}.group_delivery d
        where d.grp = p_grp and d.part = p_part and d.epoch = p_epoch and d.member = p_session and d.places && p_places
    );
end
$$;

-- Settles deliveries of a member, of each epoch the places named; and gives some of them back, each after its delay.
-- Answers with those that are no longer with the member, and with one row without a part when the group is gone.
create function {schema}.member_settle(
    p_session uuid, p_grp integer,
    p_parts integer[], p_epochs bigint[], p_places int8multirange[],
    r_parts integer[], r_epochs bigint[], r_places bigint[], r_delays bigint[]
) returns table (part integer, epoch bigint, place bigint) language plpgsql as $$
#variable_conflict use_column
declare
    v_delivery {schema}.group_delivery%rowtype;
    v_had int8multirange;
    v_done int8multirange;
    v_lost boolean := false;
    v_due timestamptz;
begin
    if cardinality(r_parts) > 0 then
        perform from {schema}.group_part p
        where p.grp = p_grp and p.part = any (r_parts)
        order by p.part
        for update;
        -- All of them in one order, since those that are given back come after the others below.
        perform from {schema}.group_delivery d
        join (
            select * from unnest(p_parts, p_epochs) union select * from unnest(r_parts, r_epochs)
        ) n(part, epoch) on n.part = d.part and n.epoch = d.epoch
        where d.grp = p_grp and d.member = p_session
        order by d.part, d.epoch, d.piece
        for update of d;
    end if;

    for i in 1 .. cardinality(p_parts) loop
        v_done := p_places[i];
        -- All of it at once, as a rule.
        delete from {schema}.group_delivery d
        where d.grp = p_grp and d.part = p_parts[i] and d.epoch = p_epochs[i] and d.piece = 0
          and d.member = p_session and d.places <@ v_done
        returning d.places into v_had;
        if found then
            continue when v_had = v_done;
            v_done := v_done - v_had;
        end if;
        loop
            for v_delivery in
                select d.* from {schema}.group_delivery d
                where d.grp = p_grp and d.part = p_parts[i] and d.epoch = p_epochs[i] and d.member = p_session
                order by d.piece
                for update
            loop
                if v_delivery.places <@ v_done then
                    delete from {schema}.group_delivery d
                    where d.grp = p_grp and d.part = p_parts[i] and d.epoch = p_epochs[i] and d.piece = v_delivery.piece;
                elsif v_delivery.places && v_done then
                    update {schema}.group_delivery d set places = d.places - v_done
                    where d.grp = p_grp and d.part = p_parts[i] and d.epoch = p_epochs[i] and d.piece = v_delivery.piece;
                end if;
                v_done := v_done - v_delivery.places;
            end loop;
            exit when isempty(v_done)
                or not {schema}.member_has(p_session, p_grp, p_parts[i], p_epochs[i], v_done);
        end loop;
        if not isempty(v_done) then
            v_lost := true;
            return query
                select p_parts[i], p_epochs[i], n
                from unnest(v_done) r, generate_series(lower(r), upper(r) - 1) n;
        end if;
    end loop;

    for i in 1 .. cardinality(r_parts) loop
        v_done := int8multirange(int8range(r_places[i], r_places[i] + 1));
        loop
            select d.* into v_delivery from {schema}.group_delivery d
            where d.grp = p_grp and d.part = r_parts[i] and d.epoch = r_epochs[i] and d.member = p_session
              and d.places @> v_done
            for update;
            exit when found or not {schema}.member_has(p_session, p_grp, r_parts[i], r_epochs[i], v_done);
        end loop;
        if v_delivery is null then
            v_lost := true;
            return query select r_parts[i], r_epochs[i], r_places[i];
            continue;
        end if;
        if v_delivery.places = v_done then
            delete from {schema}.group_delivery d
            where d.grp = p_grp and d.part = r_parts[i] and d.epoch = r_epochs[i] and d.piece = v_delivery.piece;
        else
            update {schema}.group_delivery d set places = d.places - v_done
            where d.grp = p_grp and d.part = r_parts[i] and d.epoch = r_epochs[i] and d.piece = v_delivery.piece;
        end if;
        v_due := clock_timestamp() + r_delays[i] * interval '1 microsecond';
        insert into {schema}.group_delivery (grp, part, epoch, until, segment, deliveries, places)
        values (p_grp, r_parts[i], nextval('{schema}.delivery_epoch'), v_due, v_delivery.segment,
            v_delivery.deliveries, v_done);
        update {schema}.group_part p set next_due = least(p.next_due, v_due)
        where p.grp = p_grp and p.part = r_parts[i];
    end loop;

    if v_lost and not exists (select from {schema}.consumer_group g where g.id = p_grp) then
        return query select null::integer, null::bigint, null::bigint;
    end if;
end
$$;

-- Keeps deliveries of unordered topics for longer, never for less than they had. Answers as `member_settle`.
create function {schema}.member_extend(
    p_session uuid, p_grp integer, p_parts integer[], p_epochs bigint[], p_places int8multirange[], p_by interval
) returns table (part integer, epoch bigint, place bigint) language plpgsql as $$
#variable_conflict use_column
declare
    v_until timestamptz := clock_timestamp() + p_by;
    v_delivery {schema}.group_delivery%rowtype;
    v_asked int8multirange;
    v_lost boolean := false;
begin
    for i in 1 .. cardinality(p_parts) loop
        v_asked := p_places[i];
        loop
            for v_delivery in
                select d.* from {schema}.group_delivery d
                where d.grp = p_grp and d.part = p_parts[i] and d.epoch = p_epochs[i] and d.member = p_session
                order by d.piece
                for update
            loop
                if v_delivery.until < v_until and v_delivery.places && v_asked then
                    if v_delivery.places <@ v_asked then
                        update {schema}.group_delivery d set until = v_until
                        where d.grp = p_grp and d.part = p_parts[i] and d.epoch = p_epochs[i]
                          and d.piece = v_delivery.piece;
                    else
                        update {schema}.group_delivery d set places = d.places - v_asked
                        where d.grp = p_grp and d.part = p_parts[i] and d.epoch = p_epochs[i]
                          and d.piece = v_delivery.piece;
                        insert into {schema}.group_delivery
                            (grp, part, epoch, piece, member, until, segment, deliveries, places)
                        values (p_grp, p_parts[i], p_epochs[i], nextval('{schema}.delivery_epoch'), p_session, v_until,
                            v_delivery.segment, v_delivery.deliveries, v_delivery.places * v_asked);
                    end if;
                end if;
                v_asked := v_asked - v_delivery.places;
            end loop;
            exit when isempty(v_asked)
                or not {schema}.member_has(p_session, p_grp, p_parts[i], p_epochs[i], v_asked);
        end loop;
        if not isempty(v_asked) then
            v_lost := true;
            return query
                select p_parts[i], p_epochs[i], n
                from unnest(v_asked) r, generate_series(lower(r), upper(r) - 1) n;
        end if;
    end loop;
    if v_lost and not exists (select from {schema}.consumer_group g where g.id = p_grp) then
        return query select null::integer, null::bigint, null::bigint;
    end if;
end
$$;

-- A bounded piece of housekeeping: closes the segment that is written when it is old or large, and empties the oldest one
-- once nobody needs it and it is older than `p_keep`. Passes over what others are at. With the rights of who migrated,
-- since emptying a table needs them.
create function {schema}.transport_maintain(p_keep interval, p_age interval, p_size bigint) returns void
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_closed bigint[];
    v_grp integer;
    v_state {schema}.topic_log_state%rowtype;
    v_segment {schema}.topic_segment%rowtype;
    v_sent bigint;
begin
    -- One at a time. And in a transaction of its own: the id of another may be older than the closing of a segment, and
    -- would be no fence.
    if pg_current_xact_id_if_assigned() is not null
        or not pg_try_advisory_xact_lock(hashtextextended('{schema} maintain', 0))
    then
        return;
    end if;
    select array_agg(g.id) into v_closed from {schema}.topic_segment g where g.closed_at is not null;

    perform {schema}.group_sweep();
    -- Members that are gone and have not left. Of ordered groups they hold partitions, which nobody takes from them where
    -- no other member receives. One that comes back after all joins again.
    select min(m.grp) into v_grp from {schema}.group_member m
    where m.ordered and m.live and m.until < clock_timestamp() - interval '1 hour';
    if v_grp is not null then
        perform {schema}.group_lapse(v_grp);
    end if;
    delete from {schema}.group_member m
    where m.until < clock_timestamp() - interval '1 hour' and not (m.ordered and m.live);
    delete from {schema}.topic_delayed d
    where d.due <= clock_timestamp()
      and not exists (select from {schema}.group_topic g where g.topic = d.topic);

    select s.* into v_state from {schema}.topic_log_state s for update skip locked;
    if not found then
        return;
    end if;
    -- A sender has its transaction's id before it looks for the current segment. One that still writes into a segment
    -- whose closing was committed looked before that, and this transaction got its id after it: so the sender's is lower.
    -- (The end of a snapshot would not do: an open transaction may be beyond it.) A fence of the future is of another
    -- server, from which this schema was copied: its ids say nothing here.
    update {schema}.topic_segment g set fence = pg_current_xact_id()
    where g.id = any (v_closed) and (g.fence is null or g.fence > pg_current_xact_id());

    select g.* into v_segment from {schema}.topic_segment g where g.id = v_state.current;
    if v_state.current - v_state.oldest < 7 then
        select sum(p.next) into v_sent from {schema}.topic_part p;
        if v_sent - v_segment.sent_before >= p_size
            or (v_sent > v_segment.sent_before and v_segment.opened_at <= clock_timestamp() - p_age)
        then
            update {schema}.topic_segment g set closed_at = clock_timestamp() where g.id = v_state.current;
            insert into {schema}.topic_segment (id, sent_before) values (v_state.current + 1, v_sent);
            update {schema}.topic_log_state s set current = v_state.current + 1;
        end if;
    end if;

    select g.* into v_segment from {schema}.topic_segment g where g.id = v_state.oldest;
    if v_segment.closed_at <= clock_timestamp() - p_keep
        and v_segment.fence <= pg_snapshot_xmin(pg_current_snapshot())
        and not {schema}.segment_is_needed(v_segment.id)
    then
        begin
            perform set_config('lock_timeout', '50ms', true);
            -- Who reads or writes for longer than that is waited for the next time.
            execute format('truncate {schema}.topic_log_%s', v_segment.id % 8);
            perform set_config('lock_timeout', '0', true);
        exception when lock_not_available then
            return;
        end;
        -- Now that nobody else reads or writes it, and in a new statement.
        if {schema}.segment_is_needed(v_segment.id) then
            raise exception 'segment % is needed again', v_segment.id using errcode = 'HL002';
        end if;
        delete from {schema}.topic_segment g where g.id = v_segment.id;
        update {schema}.topic_log_state s set oldest = v_segment.id + 1;
    end if;
end
$$;

-- Whether a group has something unsettled in this segment, or has yet to read it.
create function {schema}.segment_is_needed(p_segment bigint) returns boolean language sql volatile as $$
    select exists (
        select from {schema}.group_part g join {schema}.topic_part p on p.id = g.part
        where g.segment <= p_segment and g.reached < p.next
    ) or exists (
        select from {schema}.group_delivery d where d.segment <= p_segment
    )
$$;

-- It has the rights of who migrated: nobody else may have the log emptied.
revoke execute on function {schema}.transport_maintain(interval, interval, bigint) from public;
