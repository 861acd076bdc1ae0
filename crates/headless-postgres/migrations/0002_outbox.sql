-- The outbox: what waits to be sent. How it works, and why so, is docs/decisions/0007-outbox-on-postgresql.md; the
-- invariants that the comments name (O1 to O8) are there.

-- Both count by one and cache none: with a cache, the later publisher would get the smaller number.
create sequence {schema}.outbox_seq;
create sequence {schema}.outbox_epoch;

-- A row is in one part: -1 delayed; -2 waiting to be tried again, without a key; 0 to 15 by its key; 16 without a key; 17 to
-- 25 without a key, by priority. Within a part, and so within a key, `seq` is the order. A claim writes nothing here.
create table {schema}.outbox (
    part smallint not null,
    priority smallint not null default 0,
    attempts integer not null default 0,
    seq bigint not null,
    key_hash bigint,
    -- In parts -1 and -2: when it goes to its own part. Elsewhere: not to be claimed before.
    due timestamptz,
    -- When it was first due, for its age.
    ready_at timestamptz not null default clock_timestamp(),
    occurred_at timestamptz not null,
    id uuid not null,
    -- The dead letter that it was redriven from, and how often that makes it.
    previous uuid,
    redrives integer not null default 0,
    topic text not null,
    key text,
    content_type text,
    headers text,
    failures jsonb,
    payload bytea not null,
    constraint outbox_pkey primary key (part, seq),
    constraint outbox_id unique (id)
);
-- Empty as long as nothing is delayed and nothing fails.
create index outbox_due on {schema}.outbox (part, due) where due is not null;

-- What is handed out: the rows of one part that one claim took, under one lease. The row is the lock of all of them.
-- Several pieces of one epoch are what a renewal of some of its rows leaves.
create table {schema}.outbox_batch (
    epoch bigint not null,
    piece integer not null default 0,
    part smallint not null,
    owner uuid not null,
    until timestamptz not null,
    seqs bigint[] not null,
    -- Of the same places; null in parts without keys.
    key_hashes bigint[],
    constraint outbox_batch_pkey primary key (epoch, piece)
);
-- Its rows live for a moment: compressing or moving their arrays would cost more than it saves.
alter table {schema}.outbox_batch set (toast_tuple_target = 8160);
alter table {schema}.outbox_batch alter column seqs set storage external;
alter table {schema}.outbox_batch alter column key_hashes set storage external;

-- The lock of each part: whoever claims from it holds this row. With it, what of the part need not be read (O5): every
-- row up to `skip_to` is of one of `skip_keys`, and none of these begins before its place in `skip_from`.
create table {schema}.outbox_part (
    part smallint primary key,
    skip_to bigint not null default 0,
    skip_keys bigint[] not null default '{}',
    skip_from bigint[] not null default '{}'
) with (fillfactor = 50);
insert into {schema}.outbox_part (part) select generate_series(0, 25);

-- How far everything is over. One row, replaced a few times a second at most by one of the next generation: who looks for
-- the latest does not meet its predecessors, which an old snapshot keeps.
create table {schema}.outbox_mark (
    generation bigint primary key,
    taken_at timestamptz not null default clock_timestamp(),
    -- No transaction that has a number up to this one is still open (O3).
    safe_seq bigint not null default 0,
    safe_epoch bigint not null default 0,
    -- The numbers that are the next to be safe: once no transaction before `next_xid` is open.
    next_seq bigint not null default 0,
    next_epoch bigint not null default 0,
    next_xid xid8 not null default '0',
    -- When these were taken.
    next_at timestamptz not null default clock_timestamp(),
    -- There is no batch up to this epoch, and never will be one.
    batch_mark bigint not null default 0,
    -- There is no row up to this number in part 0, 1, …, and never will be one (O4).
    marks bigint[] not null default array_fill(0::bigint, array[26])
);
insert into {schema}.outbox_mark (generation) values (1);

-- The part of a row that is not delayed.
create function {schema}.outbox_place(key_hash bigint, priority smallint) returns smallint
    language sql immutable parallel safe
    return case
        when key_hash is not null then (key_hash & 15)::smallint
        when priority > 0 then (16 + priority)::smallint
        else 16::smallint
    end;

-- Failures with others after them: at most 32, the first 16 and the latest (`Failure::append`); null for none.
create function {schema}.failures_append(kept jsonb, added jsonb) returns jsonb
    language plpgsql immutable parallel safe
as $$
declare
    v_all jsonb := coalesce(kept, '[]') || coalesce(added, '[]');
begin
    while jsonb_array_length(v_all) > 32 loop
        v_all := v_all - 16;
    end loop;
    return nullif(v_all, '[]');
end
$$;

-- Stores one message; false when its id is stored already. For redrives and for SQL; a batch has a statement of its own.
-- `delay` is in microseconds.
create function {schema}.outbox_put(
    p_id uuid, p_topic text, p_key text, p_priority smallint, p_occurred_at timestamptz, p_content_type text,
    p_headers text, p_payload bytea, p_delay bigint default null, p_previous uuid default null, p_redrives integer default 0
) returns boolean
    language plpgsql
as $$
declare
    v_hash bigint := {schema}.key_hash(p_topic, p_key);
    v_due timestamptz := clock_timestamp() + p_delay * interval '1 microsecond';
begin
    insert into {schema}.outbox (part, seq, due, ready_at, id, topic, key, key_hash, priority, occurred_at, content_type,
        headers, payload, previous, redrives)
    values (
        case when v_due is null then {schema}.outbox_place(v_hash, p_priority) else -1 end,
        -- The transaction has its id before its number (O3).
        case when pg_current_xact_id() is not null then nextval('{schema}.outbox_seq') end,
        v_due, coalesce(v_due, clock_timestamp()), p_id, p_topic, p_key, v_hash, p_priority, p_occurred_at,
        p_content_type, p_headers, p_payload, p_previous, p_redrives
    )
    on conflict (id) do nothing;
    return found;
end
$$;

-- Stores many messages; arrays of nothing but defaults may be null. Returns the ids that were stored, null for all of them.
--
-- The transaction has its id before its numbers, and these are in the order of the batch (O3). Rows are inserted in the
-- order of their ids, so that two batches cannot wait for each other. `p_ascending` says that the batch has this order: then
-- it needs no sort, and as a rule nobody has stored any of it, so that it is tried without looking for each id first.
create function {schema}.outbox_append(
    p_ids uuid[], p_topics text[], p_keys text[], p_key_hashes bigint[], p_occurred_at timestamptz[], p_content_types text[],
    p_headers text[], p_payloads bytea[], p_priorities smallint[], p_delays bigint[], p_ascending boolean
) returns uuid[]
    language plpgsql
    set plan_cache_mode = force_generic_plan
as $$
declare
    v_now timestamptz := clock_timestamp();
    v_xid xid8 := pg_current_xact_id();
    v_stored uuid[];
begin
    if p_ascending then
        begin
            insert into {schema}.outbox
                (part, seq, due, ready_at, id, topic, key, key_hash, priority, occurred_at, content_type, headers, payload)
            select
                case when a.delay is null then {schema}.outbox_place(a.key_hash, coalesce(a.priority, 0::smallint)) else -1 end,
                nextval('{schema}.outbox_seq'),
                v_now + a.delay * interval '1 microsecond',
                v_now + coalesce(a.delay, 0) * interval '1 microsecond',
                a.id, a.topic, a.key, a.key_hash, coalesce(a.priority, 0::smallint), a.occurred_at, a.content_type, a.headers,
                a.payload
            from unnest(
                p_ids, p_topics, p_keys, p_key_hashes, p_occurred_at, p_content_types, p_headers, p_payloads, p_priorities,
                p_delays
            ) a(id, topic, key, key_hash, occurred_at, content_type, headers, payload, priority, delay);
            return null;
        exception when unique_violation then
            -- Some are stored already: which ones, is found below.
            null;
        end;
    end if;
    with stored as (
        insert into {schema}.outbox
            (part, seq, due, ready_at, id, topic, key, key_hash, priority, occurred_at, content_type, headers, payload)
        select
            case when m.delay is null then {schema}.outbox_place(m.key_hash, m.priority) else -1 end,
            m.seq,
            v_now + m.delay * interval '1 microsecond',
            v_now + coalesce(m.delay, 0) * interval '1 microsecond',
            m.id, m.topic, m.key, m.key_hash, m.priority, m.occurred_at, m.content_type, m.headers, m.payload
        from (
            select b.id, b.topic, b.key, b.key_hash, b.occurred_at, b.content_type, b.headers, b.payload,
                coalesce(b.priority, 0::smallint) as priority, b.delay, nextval('{schema}.outbox_seq') as seq
            from (
                select * from unnest(
                    p_ids, p_topics, p_keys, p_key_hashes, p_occurred_at, p_content_types, p_headers, p_payloads,
                    p_priorities, p_delays
                ) with ordinality as a(
                    id, topic, key, key_hash, occurred_at, content_type, headers, payload, priority, delay, n
                )
                order by n
            ) b
        ) m
        order by m.id, m.seq
        on conflict (id) do nothing
        returning id
    )
    select case when count(*) < cardinality(p_ids) then coalesce(array_agg(s.id), '{}') end into v_stored from stored s;
    return v_stored;
end
$$;

-- Whether a transaction with an id below this one is open that may have a number of the outbox (O8). It holds a lock on what
-- it takes the number for, from before that on until it has ended: a row of the outbox, or the lock of a part.
create function {schema}.outbox_is_open(p_before xid8) returns boolean
    language plpgsql
as $$
begin
    return exists (
        -- Looked at once: the server shows what holds locks on tables before it shows what has an id.
        with l as materialized (
            select k.locktype, k.database, k.relation, k.transactionid, k.virtualtransaction, k.mode
            from pg_catalog.pg_locks k where k.granted
        )
        select from l held join l xact on xact.virtualtransaction = held.virtualtransaction
        where held.locktype = 'relation'
            and held.database = (select d.oid from pg_catalog.pg_database d where d.datname = current_database())
            and held.relation in ('{schema}.outbox'::regclass, '{schema}.outbox_part'::regclass)
            and held.mode <> 'AccessShareLock'
            and xact.locktype = 'transactionid' and xact.mode = 'ExclusiveLock'
            -- Ids are shown here modulo 2^32; those of open transactions are less than 2^31 apart.
            and (p_before::text::bigint - xact.transactionid::text::bigint) & 4294967295 between 1 and 2147483647
    );
end
$$;

-- Moves the marks, unless that was done a moment ago or is being done.
--
-- Called before the transaction has an id, and so a number, of its own: whoever took a number up to the last one read
-- here had an id by then, smaller than the one that this transaction gets now. (The end of a snapshot would not do: an open
-- transaction may be beyond it.)
create function {schema}.outbox_advance() returns void
    language plpgsql
    set plan_cache_mode = force_generic_plan set enable_seqscan = off
as $$
declare
    v_seq bigint;
    v_epoch bigint;
    v_xid xid8;
    v_xmin xid8;
    v_safe boolean;
    m record;
begin
    if pg_current_xact_id_if_assigned() is not null then
        return;
    end if;
    select case when is_called then last_value else 0 end into v_seq from {schema}.outbox_seq;
    select case when is_called then last_value else 0 end into v_epoch from {schema}.outbox_epoch;
    v_xid := pg_current_xact_id();
    select * into m from {schema}.outbox_mark order by generation desc limit 1 for update skip locked;
    if not found or m.taken_at > clock_timestamp() - interval '20 milliseconds' then
        return;
    end if;
    select pg_snapshot_xmin(pg_current_snapshot()) into v_xmin;
    -- Looking at locks costs more than looking at ids: only where somebody's transaction has been open for long.
    v_safe := v_xmin >= m.next_xid or (
        m.next_xid <= v_xid and m.next_at < clock_timestamp() - interval '100 milliseconds'
        and not {schema}.outbox_is_open(m.next_xid)
    );
    if v_safe then
        m.safe_seq := m.next_seq;
        m.safe_epoch := m.next_epoch;
    end if;
    -- In a copy of this schema in a younger server the ids of the old one say nothing.
    if v_safe or m.next_xid > v_xid then
        m.next_seq := v_seq;
        m.next_epoch := v_epoch;
        m.next_xid := v_xid;
        m.next_at := clock_timestamp();
    end if;
    -- Snapshots from here on show whatever has a number up to the safe one: what they do not show will never be.
    insert into {schema}.outbox_mark (
        generation, safe_seq, safe_epoch, next_seq, next_epoch, next_xid, next_at, batch_mark, marks
    )
    select m.generation + 1, m.safe_seq, m.safe_epoch, m.next_seq, m.next_epoch, m.next_xid, m.next_at,
        greatest(m.batch_mark, least(m.safe_epoch, (
            select b.epoch - 1 from {schema}.outbox_batch b where b.epoch > m.batch_mark order by b.epoch limit 1
        ))),
        (
            select array_agg(greatest(w.mark, least(m.safe_seq, (
                select o.seq - 1 from {schema}.outbox o where o.part = w.n - 1 and o.seq > w.mark order by o.seq limit 1
            ))) order by w.n)
            from unnest(m.marks) with ordinality w(mark, n)
        );
    delete from {schema}.outbox_mark where generation = m.generation;
end
$$;

-- Finds what can be claimed of one part of keys, in order: never a row of a key with an earlier one that is held or not due.
--
-- It reads on until it has `p_limit` rows, or has looked at many and found some. What it has learnt to be of blocked keys
-- alone it does not read again (O5): it goes on behind that for as long as they are blocked, and returns what it has learnt.
create function {schema}.outbox_scan(
    p_part smallint, p_mark bigint, p_safe bigint, p_now timestamptz, p_held bigint[], p_runs boolean, p_limit integer,
    inout skip_to bigint, inout skip_keys bigint[], inout skip_from bigint[],
    out seqs bigint[], out key_hashes bigint[], out skipped integer
)
    language plpgsql stable
    set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off
as $$
#variable_conflict use_variable
declare
    c_chunk constant integer := 256;
    c_enough constant integer := 2048;
    c_keys constant integer := 256;
    v_pos bigint := p_mark;
    v_blocked bigint[] := coalesce(p_held, '{}');
    v_late_keys bigint[];
    v_late_seqs bigint[];
    v_to bigint := p_mark;
    v_keys bigint[] := '{}';
    v_from bigint[] := '{}';
    v_open boolean := true;
    v_jump bigint;
    v_read integer;
    v_all integer := 0;
    r record;
begin
    seqs := '{}';
    key_hashes := '{}';
    skipped := 0;
    select array_agg(o.key_hash), array_agg(o.seq) into v_late_keys, v_late_seqs
    from {schema}.outbox o where o.part = p_part and o.due > p_now;
    loop
        if v_pos < skip_to then
            -- Behind what was learnt, or up to the first row in it of a key that is free by now.
            select least(skip_to, min(k.first) - 1) into v_jump
            from unnest(skip_keys, skip_from) k(key, first)
            where k.key <> all (v_blocked)
                and not exists (select from unnest(v_late_keys, v_late_seqs) l(key, seq) where l.key = k.key and l.seq <= k.first);
            if v_jump > v_pos then
                if v_open then
                    select v_keys || coalesce(array_agg(k.key), '{}'), v_from || coalesce(array_agg(k.first), '{}')
                    into v_keys, v_from
                    from unnest(skip_keys, skip_from) k(key, first)
                    where k.first <= v_jump and k.key <> all (v_keys);
                    v_to := v_jump;
                end if;
                v_pos := v_jump;
                -- The rows that wait and were jumped over block their keys.
                if v_late_keys is not null then
                    select v_blocked || coalesce(array_agg(l.key), '{}') into v_blocked
                    from unnest(v_late_keys, v_late_seqs) l(key, seq)
                    where l.seq <= v_pos and l.key <> all (v_blocked);
                end if;
            end if;
        end if;
        v_read := 0;
        for r in
            select o.seq, o.key_hash, o.due from {schema}.outbox o
            where o.part = p_part and o.seq > v_pos order by o.seq limit c_chunk
        loop
            v_read := v_read + 1;
            v_pos := r.seq;
            if v_open then
                if r.seq > p_safe then
                    v_open := false;
                elsif r.key_hash = any (v_keys) then
                    v_to := r.seq;
                elsif cardinality(v_keys) >= c_keys then
                    v_open := false;
                else
                    v_keys := v_keys || r.key_hash;
                    v_from := v_from || r.seq;
                    v_to := r.seq;
                end if;
            end if;
            if r.key_hash = any (v_blocked) then
                skipped := skipped + 1;
            elsif r.due > p_now then
                v_blocked := v_blocked || r.key_hash;
            else
                seqs := seqs || r.seq;
                key_hashes := key_hashes || r.key_hash;
                exit when cardinality(seqs) >= p_limit;
                if not p_runs then
                    v_blocked := v_blocked || r.key_hash;
                end if;
            end if;
        end loop;
        v_all := v_all + v_read;
        exit when v_read < c_chunk or cardinality(seqs) >= p_limit or (v_all >= c_enough and cardinality(seqs) > 0);
    end loop;
    skip_to := v_to;
    skip_keys := v_keys;
    skip_from := v_from;
end
$$;

-- The rows of these claims that `p_owner` holds. Their batches are locked in the order of their epochs.
create function {schema}.outbox_held(p_owner uuid, p_ids uuid[], p_epochs bigint[])
    returns table (epoch bigint, part smallint, seq bigint, id uuid)
    language plpgsql
    set plan_cache_mode = force_generic_plan set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    v_epochs bigint[];
    v_pieces integer[];
begin
    loop
        select array_agg(l.epoch), array_agg(l.piece) into v_epochs, v_pieces
        from (
            select t.epoch, t.piece from {schema}.outbox_batch t
            where t.epoch = any (p_epochs) and t.owner = p_owner
            order by t.epoch, t.piece for update
        ) l;
        -- Whoever was waited for may have split one of them.
        exit when not exists (
            select from {schema}.outbox_batch t
            where t.epoch = any (p_epochs) and t.owner = p_owner
                and not exists (
                    select from unnest(v_epochs, v_pieces) l(epoch, piece) where l.epoch = t.epoch and l.piece = t.piece
                )
        );
    end loop;
    -- A statement of its own, so that it sees the batches as they were when they were locked.
    return query
        with named as materialized (select distinct n.id, n.epoch from unnest(p_ids, p_epochs) n(id, epoch))
        select b.epoch, o.part, o.seq, o.id
        from {schema}.outbox_batch b
        cross join unnest(b.seqs) s(seq)
        join {schema}.outbox o on o.part = b.part and o.seq = s.seq
        join named n on n.epoch = b.epoch and n.id = o.id
        where b.epoch = any (p_epochs) and b.owner = p_owner;
end
$$;

-- Takes rows out of the batches of these epochs, which are locked.
create function {schema}.outbox_let_go(p_owner uuid, p_epochs bigint[], p_seqs bigint[]) returns void
    language plpgsql
    set plan_cache_mode = force_generic_plan set enable_seqscan = off
as $$
begin
    delete from {schema}.outbox_batch where epoch = any (p_epochs) and owner = p_owner and seqs <@ p_seqs;
    update {schema}.outbox_batch b
    set seqs = rest.seqs, key_hashes = case when b.key_hashes is not null then rest.key_hashes end
    from {schema}.outbox_batch old
    cross join lateral (
        select array_agg(u.seq order by u.n) as seqs, array_agg(u.key_hash order by u.n) as key_hashes
        from unnest(old.seqs, old.key_hashes) with ordinality u(seq, key_hash, n)
        where u.seq <> all (p_seqs)
    ) rest
    where old.epoch = any (p_epochs) and old.owner = p_owner and old.seqs && p_seqs
        and b.epoch = old.epoch and b.piece = old.piece;
end
$$;

-- Those of the named claims that are not among the found ones.
create function {schema}.outbox_lost(p_ids uuid[], p_epochs bigint[], p_found_ids uuid[], p_found_epochs bigint[])
    returns table (id uuid, epoch bigint)
    language sql
as $$
    select n.id, n.epoch from unnest(p_ids, p_epochs) n(id, epoch)
    except
    select f.id, f.epoch from unnest(p_found_ids, p_found_epochs) f(id, epoch)
$$;

-- Settles rows that were sent. Returns the claims that were lost.
create function {schema}.outbox_ack(p_owner uuid, p_ids uuid[], p_epochs bigint[])
    returns table (id uuid, epoch bigint)
    language plpgsql
    set plan_cache_mode = force_generic_plan set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    b record;
    v_first bigint;
    v_last bigint;
    v_named uuid[];
    v_ids uuid[];
    v_seqs bigint[];
    v_found_ids uuid[] := '{}';
    v_found_epochs bigint[] := '{}';
begin
    loop
        for b in
            select t.epoch, t.piece, t.part, t.seqs from {schema}.outbox_batch t
            where t.epoch = any (p_epochs) and t.owner = p_owner
            order by t.epoch, t.piece for update
        loop
            -- All of one batch is the usual case.
            if b.epoch = all (p_epochs) then
                v_named := p_ids;
            else
                select array_agg(n.id) into v_named from unnest(p_ids, p_epochs) n(id, epoch) where n.epoch = b.epoch;
            end if;
            v_first := b.seqs[1];
            v_last := b.seqs[cardinality(b.seqs)];
            if v_last - v_first < 100 * cardinality(b.seqs) then
                -- Next to each other, as a claim of a free part takes them: one walk through the index, not one for each. The
                -- other conditions are written so that no index is used for them, and each is looked up in a hash.
                with gone as (
                    delete from {schema}.outbox o
                    where o.part = b.part and o.seq between v_first and v_last
                        and (o.id in (select unnest(v_named))) is true
                        and (o.seq in (select unnest(b.seqs))) is true
                    returning o.id, o.seq
                )
                select array_agg(g.id), array_agg(g.seq) into v_ids, v_seqs from gone g;
            else
                with gone as (
                    delete from {schema}.outbox o
                    where o.part = b.part and o.seq = any (b.seqs) and o.id = any (v_named)
                    returning o.id, o.seq
                )
                select array_agg(g.id), array_agg(g.seq) into v_ids, v_seqs from gone g;
            end if;
            if cardinality(v_seqs) = cardinality(b.seqs) then
                delete from {schema}.outbox_batch t where t.epoch = b.epoch and t.piece = b.piece;
            elsif v_seqs is not null then
                perform {schema}.outbox_let_go(p_owner, array[b.epoch], v_seqs);
            end if;
            v_found_ids := v_found_ids || v_ids;
            v_found_epochs := v_found_epochs || array_fill(b.epoch, array[coalesce(cardinality(v_ids), 0)]);
        end loop;
        -- A renewal of some of a batch, which this has waited for, has made a piece of them that was not seen yet.
        exit when cardinality(v_found_ids) >= cardinality(p_ids) or not exists (
            select from {schema}.outbox_lost(p_ids, p_epochs, v_found_ids, v_found_epochs) l
            join {schema}.outbox_batch t on t.epoch = l.epoch and t.owner = p_owner
            cross join unnest(t.seqs) s(seq)
            join {schema}.outbox o on o.part = t.part and o.seq = s.seq and o.id = l.id
        );
    end loop;
    if cardinality(v_found_ids) < cardinality(p_ids) then
        return query select l.id, l.epoch from {schema}.outbox_lost(p_ids, p_epochs, v_found_ids, v_found_epochs) l;
    end if;
end
$$;

-- Gives rows back, not to be claimed before `p_after` microseconds have passed. Returns the claims that were lost.
create function {schema}.outbox_abandon(
    p_owner uuid, p_ids uuid[], p_epochs bigint[], p_after bigint, p_used integer, p_failures jsonb
) returns table (id uuid, epoch bigint)
    language plpgsql
    set plan_cache_mode = force_generic_plan set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    v_due timestamptz := clock_timestamp() + nullif(p_after, 0) * interval '1 microsecond';
    v_parts smallint[];
    v_seqs bigint[];
    v_ids uuid[];
    v_epochs bigint[];
begin
    select array_agg(h.part), array_agg(h.seq), array_agg(h.id), array_agg(h.epoch)
    into v_parts, v_seqs, v_ids, v_epochs
    from {schema}.outbox_held(p_owner, p_ids, p_epochs) h;
    if v_seqs is not null then
        perform {schema}.outbox_let_go(p_owner, p_epochs, v_seqs);
        -- Without a key it has no place to keep: it waits apart, so that claims need not read past it.
        update {schema}.outbox o
        set part = case when v_due is not null and o.key_hash is null then -2 else o.part end,
            due = v_due,
            attempts = o.attempts + p_used,
            failures = {schema}.failures_append(o.failures, p_failures)
        from unnest(v_parts, v_seqs) h(part, seq)
        where o.part = h.part and o.seq = h.seq;
    end if;
    return query select l.id, l.epoch from {schema}.outbox_lost(p_ids, p_epochs, v_ids, v_epochs) l;
end
$$;

-- Ends rows that cannot be sent: they become dead letters. Returns the claims that were lost.
create function {schema}.outbox_fail(p_owner uuid, p_ids uuid[], p_epochs bigint[], p_failures jsonb)
    returns table (id uuid, epoch bigint)
    language plpgsql
    set plan_cache_mode = force_generic_plan set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    v_parts smallint[];
    v_seqs bigint[];
    v_ids uuid[];
    v_epochs bigint[];
begin
    select array_agg(h.part), array_agg(h.seq), array_agg(h.id), array_agg(h.epoch)
    into v_parts, v_seqs, v_ids, v_epochs
    from {schema}.outbox_held(p_owner, p_ids, p_epochs) h;
    if v_seqs is not null then
        perform {schema}.outbox_let_go(p_owner, p_epochs, v_seqs);
        with gone as (
            delete from {schema}.outbox o
            using unnest(v_parts, v_seqs) h(part, seq)
            where o.part = h.part and o.seq = h.seq
            returning o.*
        )
        insert into {schema}.dead_letter (id, topic, key, occurred_at, content_type, headers, payload, failures, rounds,
            redrives, previous)
        select g.id, g.topic, g.key, g.occurred_at, g.content_type, g.headers, g.payload,
            {schema}.failures_append(g.failures, p_failures), g.attempts + 1, g.redrives, g.previous
        from gone g;
    end if;
    return query select l.id, l.epoch from {schema}.outbox_lost(p_ids, p_epochs, v_ids, v_epochs) l;
end
$$;

-- Holds rows for `p_lease` microseconds from now. Returns the claims that were lost.
create function {schema}.outbox_renew(p_owner uuid, p_ids uuid[], p_epochs bigint[], p_lease bigint)
    returns table (id uuid, epoch bigint)
    language plpgsql
    set plan_cache_mode = force_generic_plan set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    v_until timestamptz := clock_timestamp() + p_lease * interval '1 microsecond';
    v_seqs bigint[];
    v_ids uuid[];
    v_epochs bigint[];
    b record;
begin
    select array_agg(h.seq), array_agg(h.id), array_agg(h.epoch) into v_seqs, v_ids, v_epochs
    from {schema}.outbox_held(p_owner, p_ids, p_epochs) h;
    if v_seqs is not null then
        update {schema}.outbox_batch t set until = v_until
        where t.epoch = any (p_epochs) and t.owner = p_owner and t.seqs <@ v_seqs;
        -- Where some of a batch are named, they become a piece of their own.
        for b in
            select t.* from {schema}.outbox_batch t
            where t.epoch = any (p_epochs) and t.owner = p_owner and t.seqs && v_seqs and not t.seqs <@ v_seqs
            order by t.epoch, t.piece
        loop
            insert into {schema}.outbox_batch (epoch, piece, part, owner, until, seqs, key_hashes)
            select b.epoch, (select max(t.piece) + 1 from {schema}.outbox_batch t where t.epoch = b.epoch), b.part, b.owner,
                v_until, array_agg(u.seq order by u.n),
                case when b.key_hashes is not null then array_agg(u.key_hash order by u.n) end
            from unnest(b.seqs, b.key_hashes) with ordinality u(seq, key_hash, n)
            where u.seq = any (v_seqs);
            update {schema}.outbox_batch t
            set (seqs, key_hashes) = (
                select array_agg(u.seq order by u.n),
                    case when b.key_hashes is not null then array_agg(u.key_hash order by u.n) end
                from unnest(b.seqs, b.key_hashes) with ordinality u(seq, key_hash, n)
                where u.seq <> all (v_seqs)
            )
            where t.epoch = b.epoch and t.piece = b.piece;
        end loop;
    end if;
    return query select l.id, l.epoch from {schema}.outbox_lost(p_ids, p_epochs, v_ids, v_epochs) l;
end
$$;

-- Ends at most `p_limit` holds whose lease is over, and returns how many there were.
create function {schema}.outbox_reap(p_limit bigint) returns bigint
    language plpgsql
    set plan_cache_mode = force_generic_plan set enable_seqscan = off
as $$
declare
    v_left bigint := p_limit;
    v_here integer;
    b record;
begin
    for b in
        select t.epoch, t.piece, t.seqs from {schema}.outbox_batch t
        where t.epoch > (select m.batch_mark from {schema}.outbox_mark m order by m.generation desc limit 1) and t.until <= clock_timestamp()
        order by t.epoch, t.piece for update skip locked
    loop
        exit when v_left <= 0;
        v_here := least(v_left, cardinality(b.seqs));
        if v_here = cardinality(b.seqs) then
            delete from {schema}.outbox_batch t where t.epoch = b.epoch and t.piece = b.piece;
        else
            update {schema}.outbox_batch t
            set seqs = t.seqs[v_here + 1:], key_hashes = t.key_hashes[v_here + 1:]
            where t.epoch = b.epoch and t.piece = b.piece;
        end if;
        v_left := v_left - v_here;
    end loop;
    return p_limit - v_left;
end
$$;

-- Ends every hold of an owner, and returns how many there were. The batches are locked in the order of their epochs, as
-- whoever settles them does; what a renewal has split off meanwhile is found by the next look.
create function {schema}.outbox_release(p_owner uuid) returns bigint
    language plpgsql
    set plan_cache_mode = force_generic_plan set enable_seqscan = off
as $$
declare
    -- Batches that are made from here on are not its business.
    v_last bigint := (select s.last_value from {schema}.outbox_epoch s);
    v_released bigint := 0;
    v_found boolean;
    b record;
begin
    loop
        v_found := false;
        for b in
            select t.epoch, t.piece, t.seqs from {schema}.outbox_batch t
            where t.owner = p_owner and t.epoch <= v_last
            order by t.epoch, t.piece for update
        loop
            delete from {schema}.outbox_batch t where t.epoch = b.epoch and t.piece = b.piece;
            v_released := v_released + cardinality(b.seqs);
            v_found := true;
        end loop;
        exit when not v_found;
    end loop;
    return v_released;
end
$$;

-- These headers as of a message that is no longer delayed. What cannot be read stays as it is: whoever claims it sees.
create function {schema}.headers_without_delay(headers text) returns text
    language plpgsql immutable parallel safe
as $$
begin
    return nullif((headers::jsonb - 'hl-deliver-after')::text, '{}');
exception when others then
    return headers;
end
$$;

-- Ends rows that whoever claimed them cannot read: they become dead letters without what could not be read, which the
-- failures say. Returns the claims that were lost.
create function {schema}.outbox_fail_unreadable(p_owner uuid, p_ids uuid[], p_epochs bigint[], p_errors text[])
    returns table (id uuid, epoch bigint)
    language plpgsql
    set plan_cache_mode = force_generic_plan set enable_seqscan = off
as $$
#variable_conflict use_column
begin
    update {schema}.outbox o
    set topic = case when o.topic ~ '^[a-z0-9][a-z0-9_-]*(\.[a-z0-9_-]+)*$' and octet_length(o.topic) <= 90
            and o.topic not like '%.dead' then o.topic else 'unreadable' end,
        key = null, content_type = null, headers = null
    from {schema}.outbox_held(p_owner, p_ids, p_epochs) h
    where o.part = h.part and o.seq = h.seq;
    for n in 1 .. cardinality(p_ids) loop
        return query select f.* from {schema}.outbox_fail(p_owner, p_ids[n:n], p_epochs[n:n], jsonb_build_array(
            jsonb_build_object(
                'cause', 'undecodable', 'message', p_errors[n], 'node', '',
                'at', to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
            )
        )) f;
    end loop;
end
$$;

-- Moves rows whose delay is over, or which waited apart to be tried again, to their own part, each with a fresh number.
create function {schema}.outbox_promote(p_now timestamptz) returns void
    language plpgsql
    set plan_cache_mode = force_generic_plan set enable_seqscan = off
as $$
declare
    r record;
begin
    -- The transaction has its id before its numbers (O3).
    perform pg_current_xact_id();
    for r in
        select o.part, o.seq from {schema}.outbox o
        where o.part = any ('{-2,-1}'::smallint[]) and o.due <= p_now
        order by o.due, o.seq limit 1000 for update skip locked
    loop
        update {schema}.outbox o
        set part = {schema}.outbox_place(o.key_hash, o.priority),
            seq = nextval('{schema}.outbox_seq'),
            due = null,
            headers = {schema}.headers_without_delay(o.headers)
        where o.part = r.part and o.seq = r.seq;
    end loop;
end
$$;

-- Acknowledges what is named, then claims at most `p_limit` rows for `p_lease` microseconds. Returns the claims that were
-- lost, with `lost` set, and the rows that were claimed.
create function {schema}.outbox_claim(
    p_owner uuid, p_limit integer, p_lease bigint, p_runs boolean, p_ids uuid[], p_epochs bigint[]
) returns table (
    lost boolean, epoch bigint, seq bigint, attempts integer, id uuid, topic text, key text, occurred_at timestamptz,
    content_type text, headers text, payload bytea
)
    language plpgsql
    set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off
as $$
#variable_conflict use_column
declare
    v_now timestamptz := clock_timestamp();
    v_until timestamptz := v_now + p_lease * interval '1 microsecond';
    v_left integer := p_limit;
    m record;
    v_parts smallint[];
    v_part smallint;
    v_busy smallint[];
    v_urgent boolean;
    v_count integer;
    v_next integer := 0;
    v_taken integer;
    v_contended boolean := false;
    v_patience text;
    v_epoch bigint;
    v_seqs bigint[];
    v_keys bigint[];
    v_blocked boolean;
    v_over boolean;
    p record;
    b record;
    s record;
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        -- A snapshot that is older than a lock would show rows as free that another has claimed.
        raise exception 'the outbox is claimed from in read committed transactions alone' using errcode = '25001';
    end if;
    select * into m from {schema}.outbox_mark order by generation desc limit 1;
    if m.taken_at < v_now - interval '20 milliseconds' then
        perform {schema}.outbox_advance();
        select * into m from {schema}.outbox_mark order by generation desc limit 1;
    end if;
    if cardinality(p_ids) > 0 then
        return query
            select true, a.epoch, null::bigint, null::integer, a.id, null::text, null::text, null::timestamptz,
                null::text, null::text, null::bytea
            from {schema}.outbox_ack(p_owner, p_ids, p_epochs) a;
    end if;
    if exists (select from {schema}.outbox o where o.part = any ('{-2,-1}'::smallint[]) and o.due <= v_now) then
        perform {schema}.outbox_promote(v_now);
    end if;

    -- Priorities first, then the oldest head; where somebody holds rows, last.
    v_urgent := exists (select from {schema}.outbox o where o.part > 16);
    select array_agg(distinct t.part) into v_busy
    from {schema}.outbox_batch t where t.epoch > m.batch_mark and t.until > v_now;
    select array_agg((w.n - 1)::smallint order by
        case when w.n > 17 then w.n else 0 end desc, (w.n - 1)::smallint = any (v_busy) is true, h.seq)
    into v_parts
    from unnest(case when v_urgent then m.marks else m.marks[:17] end) with ordinality w(mark, n)
    cross join lateral (
        select o.seq from {schema}.outbox o
        where o.part = (w.n - 1)::smallint and o.seq > w.mark order by o.seq limit 1
    ) h;

    v_count := coalesce(cardinality(v_parts), 0);
    while v_left > 0 and v_next < v_count + v_contended::integer loop
        v_next := v_next + 1;
        v_part := v_parts[v_next];
        if v_next <= v_count then
            select * into p from {schema}.outbox_part t where t.part = v_part for update skip locked;
            if not found then
                if v_part = 16 then
                    v_contended := true;
                    v_parts := v_parts || v_part;
                end if;
                continue;
            end if;
        else
            -- All rows without a key share one lock. Who has found nothing else waits for the claim that has it now,
            -- rather than to call an outbox empty that is not.
            exit when v_left < p_limit;
            v_patience := current_setting('lock_timeout');
            begin
                perform set_config('lock_timeout', '250ms', true);
                select * into p from {schema}.outbox_part t where t.part = v_part for update;
                perform set_config('lock_timeout', v_patience, true);
            exception when lock_not_available then
                exit;
            end;
        end if;
        -- Statements from here on see whatever claims of this part have committed (O1).
        for v_look in 1 .. 2 loop
            v_blocked := false;
            v_over := false;
            v_seqs := null;
            v_keys := null;
            for b in
                select t.until, t.seqs, t.key_hashes from {schema}.outbox_batch t
                where t.epoch > m.batch_mark and t.part = v_part
            loop
                v_blocked := true;
                v_over := v_over or b.until <= v_now;
                v_seqs := v_seqs || b.seqs;
                v_keys := v_keys || b.key_hashes;
            end loop;
            exit when v_look = 2 or not v_over;
            -- Over: their rows are free, unless their owner is settling them right now. Then look again: whatever is left
            -- blocks its rows. An owner that has renewed some of a batch meanwhile has made a piece of them, which the
            -- look before did not see.
            delete from {schema}.outbox_batch t
            where (t.epoch, t.piece) in (
                select l.epoch, l.piece from {schema}.outbox_batch l
                where l.epoch > m.batch_mark and l.part = v_part and l.until <= v_now for update skip locked
            );
        end loop;
        if v_part < 16 and (
            v_blocked or not p_runs
            or exists (select from {schema}.outbox o where o.part = v_part and o.due > v_now)
        ) then
            select * into s from {schema}.outbox_scan(
                v_part, m.marks[v_part + 1], m.safe_seq, v_now, v_keys, p_runs, v_left, p.skip_to, p.skip_keys, p.skip_from
            );
            if s.skipped >= 128 and s.skip_to <> p.skip_to then
                update {schema}.outbox_part t
                set skip_to = s.skip_to, skip_keys = s.skip_keys, skip_from = s.skip_from
                where t.part = v_part;
            end if;
            v_seqs := s.seqs;
            v_keys := s.key_hashes;
        elsif v_blocked then
            select array_agg(f.seq) into v_seqs from (
                select o.seq from {schema}.outbox o
                where o.part = v_part and o.seq > m.marks[v_part + 1] and o.seq not in (select unnest(v_seqs))
                order by o.seq limit v_left
            ) f;
            v_keys := null;
        else
            -- Nobody holds anything and nothing waits: the first rows, whichever they are.
            v_epoch := nextval('{schema}.outbox_epoch');
            return query
                with taken as materialized (
                    select o.* from {schema}.outbox o
                    where o.part = v_part and o.seq > m.marks[v_part + 1]
                    order by o.seq limit v_left
                ), made as (
                    insert into {schema}.outbox_batch (epoch, part, owner, until, seqs, key_hashes)
                    select v_epoch, v_part, p_owner, v_until, array_agg(t.seq),
                        case when v_part < 16 then array_agg(t.key_hash) end
                    from taken t having count(*) > 0
                )
                select false, v_epoch, t.seq, t.attempts, t.id, t.topic, t.key, t.occurred_at, t.content_type, t.headers,
                    t.payload
                from taken t;
            get diagnostics v_taken = row_count;
            v_left := v_left - v_taken;
            continue;
        end if;
        if cardinality(v_seqs) > 0 then
            v_epoch := nextval('{schema}.outbox_epoch');
            insert into {schema}.outbox_batch (epoch, part, owner, until, seqs, key_hashes)
            values (v_epoch, v_part, p_owner, v_until, v_seqs, v_keys);
            return query
                select false, v_epoch, o.seq, o.attempts, o.id, o.topic, o.key, o.occurred_at, o.content_type, o.headers,
                    o.payload
                from {schema}.outbox o where o.part = v_part and o.seq = any (v_seqs);
            v_left := v_left - cardinality(v_seqs);
        end if;
    end loop;
end
$$;

-- How many microseconds until something can be claimed, 0 when it can now; and until the first lease ends. Null for never.
-- Ends at most `p_reap` holds whose lease is over first.
create function {schema}.outbox_pulse(p_reap bigint, out next_in bigint, out lease_in bigint)
    language plpgsql
    set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off
as $$
#variable_conflict use_column
declare
    v_now timestamptz;
    m record;
    h record;
    p record;
    v_found boolean;
begin
    perform {schema}.outbox_reap(p_reap);
    v_now := clock_timestamp();
    select * into m from {schema}.outbox_mark order by generation desc limit 1;
    select greatest((extract(epoch from min(t.until) - v_now) * 1000000)::bigint, 0) into lease_in
    from {schema}.outbox_batch t where t.epoch > m.batch_mark having count(*) > 0;
    if exists (select from {schema}.outbox o where o.part = any ('{-2,-1}'::smallint[]) and o.due <= v_now) then
        next_in := 0;
        return;
    end if;
    for h in
        select (w.n - 1)::smallint as part, w.mark
        from unnest(m.marks) with ordinality w(mark, n)
        where exists (select from {schema}.outbox o where o.part = (w.n - 1)::smallint and o.seq > w.mark)
    loop
        select array_agg(u.seq) as seqs, array_agg(u.key_hash) as key_hashes into p
        from {schema}.outbox_batch t, unnest(t.seqs, t.key_hashes) u(seq, key_hash)
        where t.epoch > m.batch_mark and t.part = h.part and t.until > v_now;
        if h.part < 16 then
            select cardinality(s.seqs) > 0 into v_found
            from {schema}.outbox_part t,
                {schema}.outbox_scan(
                    h.part, h.mark, m.safe_seq, v_now, p.key_hashes, true, 1, t.skip_to, t.skip_keys, t.skip_from
                ) s
            where t.part = h.part;
        else
            v_found := exists (
                select from {schema}.outbox o
                where o.part = h.part and o.seq > h.mark and o.seq not in (select unnest(p.seqs))
            );
        end if;
        if v_found then
            next_in := 0;
            return;
        end if;
    end loop;
    select (extract(epoch from min(d.due) - v_now) * 1000000)::bigint into next_in
    from generate_series(-2, 15) w(part)
    cross join lateral (
        select o.due from {schema}.outbox o
        where o.part = w.part::smallint and o.due > v_now order by o.due limit 1
    ) d;
end
$$;
