-- The nodes that use this store. All times are the server's.

create sequence {schema}.node_incarnation;

-- A row for each registration, until it is forgotten. A node that has been silent for its `dead_after` is dead from that
-- moment, whether or not it has been buried: nothing that it says changes its row any more.
create table {schema}.node (
    incarnation bigint primary key default nextval('{schema}.node_incarnation'),
    owner uuid not null,
    service text not null,
    label text not null,
    suspect_after interval not null,
    dead_after interval not null,
    registered_at timestamptz not null default clock_timestamp(),
    heard_at timestamptz not null default clock_timestamp(),
    -- 2 dead, 3 left; null as long as it has not been buried and has not left.
    ended smallint check (ended in (2, 3)),
    ended_at timestamptz,
    facts text not null
) with (fillfactor = 50);
-- An owner has one of them at most.
create unique index node_open on {schema}.node (owner) where ended is null;

-- How many claims an owner had in this store: they are free now. Rounds that had begun count, so that a message which kills
-- its process comes to its last one. Passes over what an open transaction holds: to wait for one that hangs would keep the
-- claims of every other node from being freed.
create function {schema}.node_free(p_owner uuid) returns bigint
    language plpgsql
    set plan_cache_mode = force_generic_plan set enable_seqscan = off
as $$
declare
    v_freed bigint := 0;
    v_found bigint;
begin
    loop
        with held as (
            select t.epoch, t.piece from {schema}.outbox_batch t
            where t.owner = p_owner
            order by t.epoch, t.piece for update skip locked
        ), gone as (
            delete from {schema}.outbox_batch t using held
            where t.epoch = held.epoch and t.piece = held.piece
            returning cardinality(t.seqs) as rows
        )
        select sum(gone.rows) into v_found from gone;
        -- What a renewal has split off meanwhile is found by the next look.
        exit when v_found is null;
        v_freed := v_freed + v_found;
    end loop;
    return v_freed
        + (select count(*) from {schema}.inbox_give_back(null, null, null, p_owner, 0, false, null, true));
end
$$;

-- Registers a node, and ends what is open of its owner: dead if it was silent for too long, left otherwise. Unless one
-- lived, everything that the owner holds is free, what it claimed after its burial too.
create function {schema}.node_register(
    p_owner uuid, p_service text, p_label text, p_suspect_after bigint, p_dead_after bigint, p_facts text
) returns bigint
    language plpgsql
    set plan_cache_mode = force_generic_plan
as $$
declare
    v_dead boolean;
    v_incarnation bigint;
begin
    -- Two registrations of one owner at once, as of a call that was given up and its repetition, come one after the other.
    perform pg_advisory_xact_lock(hashtextextended('{schema} node ' || p_owner::text, 0));
    update {schema}.node n
    set ended = case when clock_timestamp() - n.heard_at >= n.dead_after then 2 else 3 end, ended_at = clock_timestamp()
    where n.owner = p_owner and n.ended is null
    returning n.ended = 2 into v_dead;
    if v_dead is distinct from false then
        perform {schema}.node_free(p_owner);
    end if;
    insert into {schema}.node (owner, service, label, suspect_after, dead_after, facts)
    values (p_owner, p_service, p_label, p_suspect_after * interval '1 microsecond', p_dead_after * interval '1 microsecond',
        p_facts)
    returning incarnation into v_incarnation;
    return v_incarnation;
end
$$;

-- Ends a node that says good-bye, and frees what its owner still holds. False when it had ended already.
create function {schema}.node_leave(p_owner uuid, p_incarnation bigint) returns boolean
    language plpgsql
    set plan_cache_mode = force_generic_plan
as $$
begin
    update {schema}.node n set ended = 3, ended_at = clock_timestamp()
    where n.incarnation = p_incarnation and n.owner = p_owner and n.ended is null
        and clock_timestamp() - n.heard_at < n.dead_after;
    if not found then
        return false;
    end if;
    perform {schema}.node_free(p_owner);
    return true;
end
$$;

-- Buries one node that has been silent for too long, and frees what it holds. Who another call is at is left to it: no row
-- when nobody else is dead.
create function {schema}.node_bury()
    returns table (incarnation bigint, owner uuid, label text, freed bigint)
    language plpgsql
    set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    n record;
begin
    select o.incarnation, o.owner, o.label into n from {schema}.node o
    where o.ended is null and clock_timestamp() - o.heard_at >= o.dead_after
    order by o.incarnation limit 1 for update skip locked;
    if found then
        update {schema}.node o set ended = 2, ended_at = clock_timestamp() where o.incarnation = n.incarnation;
        return query select n.incarnation, n.owner, n.label, {schema}.node_free(n.owner);
    end if;
end
$$;
