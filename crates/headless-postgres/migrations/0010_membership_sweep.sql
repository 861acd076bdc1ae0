-- A second look at what nodes held that have ended, and looks at nodes whose cost does not grow with how many have ended.

-- When to look again at what is held in the name of a node that has ended; null once nothing more can come to it.
alter table {schema}.node add column look_at timestamptz;
create index node_look on {schema}.node (look_at) where look_at is not null;
-- Who lives, in the order in which nodes are listed and buried. A heartbeat changes neither of these.
create index node_living on {schema}.node (incarnation) where ended is null;
create index node_ended on {schema}.node (ended_at) where ended_at is not null;

-- Those that have ended before this may have been passed over, too.
update {schema}.node set look_at = clock_timestamp() where ended is not null;

-- Whether an owner holds anything under a lease that has not ended. What is locked counts.
create function {schema}.node_holds(p_owner uuid) returns boolean
    language plpgsql
    set plan_cache_mode = force_generic_plan set enable_seqscan = off
as $$
declare
    -- The clock itself, which goes on within a statement, would keep the index from being used.
    v_now constant timestamptz := clock_timestamp();
begin
    return exists (select from {schema}.outbox_batch t where t.owner = p_owner and t.until > v_now)
        or exists (select from {schema}.inbox i where i.state = 0 and i.at > v_now and i.owner = p_owner);
end
$$;

-- Looks again at one node that has ended, the one that was looked at longest ago, and frees what is held in its name: what
-- was passed over since a transaction had it locked, and what a claim brought that was under way. Who another call is at is
-- left to it: no row when there is nobody else to look at.
--
-- An owner that has registered anew keeps what it holds. Registrations of one owner take its lock first, so that none is
-- made between the look for one and what is freed because there is none.
create function {schema}.node_sweep() returns table (freed bigint)
    language plpgsql
    set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    v_now constant timestamptz := clock_timestamp();
    n record;
    v_freed bigint := 0;
    v_look_at timestamptz := v_now + interval '1 second';
begin
    select o.incarnation, o.owner, o.ended_at, o.dead_after into n from {schema}.node o
    where o.look_at <= v_now
    order by o.look_at limit 1 for update skip locked;
    if not found then
        return;
    end if;
    -- Its owner is just registering: then the next look finds it alive.
    if pg_try_advisory_xact_lock(hashtextextended('{schema} node ' || n.owner::text, 0)) then
        if exists (select from {schema}.node o where o.owner = n.owner and o.ended is null) then
            v_look_at := null;
        else
            v_freed := {schema}.node_free(n.owner);
            if clock_timestamp() - n.ended_at >= n.dead_after and not {schema}.node_holds(n.owner) then
                v_look_at := null;
            end if;
        end if;
    end if;
    update {schema}.node o set look_at = v_look_at where o.incarnation = n.incarnation;
    return query select v_freed;
end
$$;

-- As before, and the node is looked at again.
create or replace function {schema}.node_leave(p_owner uuid, p_incarnation bigint) returns boolean
    language plpgsql
    set plan_cache_mode = force_generic_plan
as $$
begin
    update {schema}.node n set ended = 3, ended_at = clock_timestamp(), look_at = clock_timestamp()
    where n.incarnation = p_incarnation and n.owner = p_owner and n.ended is null
        and clock_timestamp() - n.heard_at < n.dead_after;
    if not found then
        return false;
    end if;
    perform {schema}.node_free(p_owner);
    return true;
end
$$;

-- As before, and the node is looked at again.
create or replace function {schema}.node_bury()
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
        update {schema}.node o set ended = 2, ended_at = clock_timestamp(), look_at = clock_timestamp()
        where o.incarnation = n.incarnation;
        return query select n.incarnation, n.owner, n.label, {schema}.node_free(n.owner);
    end if;
end
$$;
