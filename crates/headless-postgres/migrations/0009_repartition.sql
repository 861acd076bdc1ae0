-- Giving a topic another order, or another count of partitions.
--
-- A topic keeps its id, and gets new parts in the place of those that it had. So whoever still goes by the old ones finds
-- none of them: a sender asks anew, and a member sees that it holds nothing. Where it is done, no group has anything of the
-- topic, and senders wait meanwhile: each locks a part that it writes to, or the topic where it writes to none yet.
--
-- Locks are taken in this order: the one of declarations, topic, topic_part; then as told in 0004: consumer_group,
-- topic_log_state, group_member, group_part. Nobody who has one of the latter waits for one of the former.

-- A sender knew parts that are no more. Nothing of what it asked for is done.
create function {schema}.parts_are_gone() returns void language plpgsql as $$
begin
    raise exception 'the topic was given another order' using errcode = 'HL003';
end
$$;

-- Sends messages, all or none of each topic. `p_topics` are the topics, `p_parts` the parts with how many messages go
-- to each, and the rest are the columns of the messages, each with its part, the index of that in `p_parts` and its rank
-- there; null for a delayed one. Answers for topics that did not get theirs: 1 when no group takes it, 2 when one was
-- required, 3 when there is no such topic any more. Fails as a whole with HL003 where a part is no more.
create or replace function {schema}.transport_send(
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

    if m_delay is not null then
        -- What waits for its time touches no part, so that it is the topic that must stay as it is until this is committed.
        perform from {schema}.topic t where t.id = any (p_topics) order by t.id for key share;
        if exists (
            select from unnest(m_part, m_delay) m(part, delay)
            where m.delay is not null and not exists (select from {schema}.topic_part p where p.id = m.part)
        ) then
            perform {schema}.parts_are_gone();
        end if;
    end if;

    -- Parts come in the order of their ids, so that two senders do not wait for each other. This gives the transaction
    -- its id too, and it must have that before it looks for the current segment: see `transport_maintain`.
    for i in 1 .. coalesce(array_length(p_parts, 1), 0) loop
        update {schema}.topic_part p
        set next = p.next + p_counts[i], uneven = p.uneven or p_uneven[i]
        where p.id = p_parts[i] and (v_unrouted is null or p.topic <> all (v_unrouted))
        returning p.next - p_counts[i] into v_base;
        if v_base is null and not exists (select from {schema}.topic_part p where p.id = p_parts[i]) then
            perform {schema}.parts_are_gone();
        end if;
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
create or replace function {schema}.send_foreign(p_topic text, p_payload bytea, p_key text default null) returns void
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
    -- It stays as it is until this is committed.
    select * into v_topic from {schema}.topic t where t.name = p_topic for key share;
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

-- The groups that hold something of a topic, and how much: what waits, is delayed or is unsettled.
create function {schema}.topic_held(p_topic integer) returns table (grp text, held bigint) language sql volatile as $$
    select g.name, h.held
    from (
        select t.grp, (
            (
                select coalesce(sum(p.next - gp.reached), 0)
                from {schema}.group_part gp join {schema}.topic_part p on p.id = gp.part
                where gp.grp = t.grp and gp.topic = p_topic
            ) + (
                select coalesce(sum(upper(r) - lower(r)), 0)
                from {schema}.group_part gp
                join {schema}.group_delivery d on d.grp = gp.grp and d.part = gp.part, unnest(d.places) r
                where gp.grp = t.grp and gp.topic = p_topic
            ) + (
                select count(*) from {schema}.topic_delayed d where d.topic = p_topic and t.born <= d.born
            )
        )::bigint as held
        from {schema}.group_topic t
        where t.topic = p_topic
    ) h
    join {schema}.consumer_group g on g.id = h.grp
    where h.held > 0
    order by g.name
$$;

-- Gives a topic another order, if no group holds anything of it: `p_partitions` is null for none. Answers 0 with the order
-- that it had; 1 where there is no such topic; 2 with each group that holds something. Waits for each lock for
-- `p_patience` milliseconds at most.
create function {schema}.transport_repartition(p_topic text, p_partitions smallint, p_patience integer)
    returns table (answer smallint, before smallint, grp text, held bigint) language plpgsql as $$
#variable_conflict use_column
declare
    v_topic {schema}.topic%rowtype;
    v_state {schema}.topic_log_state%rowtype;
    v_groups integer[];
    v_grp integer;
    v_sum bigint;
    v_first bigint;
    v_new bigint;
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        -- It would look for what groups hold in a snapshot that is older than its locks.
        raise exception 'topics are changed in read committed transactions alone' using errcode = '25001';
    end if;
    perform set_config('lock_timeout', p_patience::text, true);
    perform pg_advisory_xact_lock(hashtextextended('{schema} declare', 0));
    perform {schema}.group_sweep();
    select * into v_topic from {schema}.topic t where t.name = p_topic;
    if not found then
        return query select 1::smallint, null::smallint, null::text, null::bigint;
        return;
    end if;
    if v_topic.partitions is not distinct from p_partitions then
        return query select 0::smallint, v_topic.partitions, null::text, null::bigint;
        return;
    end if;
    -- First without a lock: who asks again and again until nothing is held does not hold senders up.
    return query select 2::smallint, v_topic.partitions, h.grp, h.held from {schema}.topic_held(v_topic.id) h;
    if found then
        return;
    end if;

    -- From here on nothing is sent, nor moved into the log, and in statements after it, so that all that was is seen.
    -- What groups hold becomes less only: what a step, a settlement or a promotion is at shows as it was before it.
    perform from {schema}.topic t where t.id = v_topic.id for update;
    -- To wait for one sender's part holds all others up: shortly, then, and whoever wants it asks again.
    perform set_config('lock_timeout', least(p_patience, 200)::text, true);
    perform from {schema}.topic_part p where p.topic = v_topic.id order by p.id for update;
    return query select 2::smallint, v_topic.partitions, h.grp, h.held from {schema}.topic_held(v_topic.id) h;
    if found then
        return;
    end if;

    -- Groups are declared under the first lock, so that none begins now.
    v_groups := array(
        select g.id from {schema}.group_topic t join {schema}.consumer_group g on g.id = t.grp
        where t.topic = v_topic.id
        order by g.id
        for update of g
    );
    -- Nobody closes a segment meanwhile.
    select * into v_state from {schema}.topic_log_state s for update;
    -- Members share partitions now. Of those that did, each still has to hear that it holds none.
    if p_partitions is not null then
        perform from {schema}.group_member m
        where m.grp = any (v_groups) and v_topic.id = any (m.topics) and not m.ordered
        order by m.id
        for update;
        -- One that had lapsed is given a share too: a step of it that is under way does not know that it would have to ask for one.
        update {schema}.group_member m set ordered = true, live = true
        where m.grp = any (v_groups) and v_topic.id = any (m.topics) and not m.ordered;
    end if;
    perform from {schema}.group_part p where p.topic = v_topic.id order by p.grp, p.part for update;
    delete from {schema}.group_part p where p.topic = v_topic.id;
    -- What no group waits for.
    delete from {schema}.topic_delayed d where d.topic = v_topic.id;

    -- New parts go on behind the places of all old ones, so that no place of the topic is given twice: the ids of foreign
    -- messages are made of them.
    select sum(p.next), max(p.next) into v_sum, v_first from {schema}.topic_part p where p.topic = v_topic.id;
    delete from {schema}.topic_part p where p.topic = v_topic.id;
    update {schema}.topic t set partitions = p_partitions where t.id = v_topic.id;
    insert into {schema}.topic_part (topic, number, priority, next)
    select v_topic.id, n, case when p_partitions is null then greatest(n - 3, 0) else 0 end, v_first
    from generate_series(0, coalesce(p_partitions - 1, 12)) n;
    get diagnostics v_new = row_count;
    -- The current segment has as many messages as it had.
    update {schema}.topic_segment g set sent_before = g.sent_before + v_first * v_new - v_sum
    where g.id = v_state.current;

    insert into {schema}.group_part (grp, part, topic, reached, segment)
    select g.id, p.id, p.topic, p.next, v_state.oldest
    from {schema}.topic_part p, unnest(v_groups) g(id)
    where p.topic = v_topic.id;
    foreach v_grp in array v_groups loop
        perform {schema}.group_assign(v_grp);
    end loop;
    return query select 0::smallint, v_topic.partitions, null::text, null::bigint;
end
$$;

-- As before, but for the last step: whether a member shares partitions may change while its leaving waits for the group.
create or replace function {schema}.member_leave(p_session uuid) returns void language plpgsql as $$
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
    perform {schema}.group_assign(v_member.grp);
end
$$;
