-- What operators want of services.

-- One row: the version of the latest change. Who changes anything locks it first, so that versions become visible in their
-- order, and whoever has read one finds every change up to it.
create table {schema}.control_revision (
    one boolean primary key default true check (one),
    revision bigint not null
) with (fillfactor = 10);
insert into {schema}.control_revision (revision) values (0);

-- A row for each subject that was ever changed; what was taken back stays, for its version.
create table {schema}.control (
    service text collate "C" not null,
    subject text collate "C" not null,
    paused boolean not null,
    concurrency integer check (concurrency > 0),
    version bigint not null,
    changed_by text not null,
    changed_at timestamptz not null,
    primary key (service, subject)
);

-- Stores what is wanted of a subject, if its version is still the expected one (0 for none), and answers the new version as
-- `stored`: -1 where the service has as many subjects as it may. A conflict answers the row that is there, if one is.
create function {schema}.control_put(
    p_service text, p_subject text, p_paused boolean, p_concurrency integer, p_expected bigint, p_by text, p_most bigint
) returns table (
    stored bigint, service text, subject text, paused boolean, concurrency integer, version bigint, changed_by text,
    changed bigint
)
    language plpgsql
    set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    v_next bigint;
    v_there bigint;
begin
    select r.revision + 1 into v_next from {schema}.control_revision r for update;
    select c.version into v_there from {schema}.control c where c.service = p_service and c.subject = p_subject;
    if coalesce(v_there, 0) <> p_expected then
        return query
            select null::bigint, c.service, c.subject, c.paused, c.concurrency, c.version, c.changed_by,
                {schema}.microseconds(clock_timestamp() - c.changed_at)
            from {schema}.control c where c.service = p_service and c.subject = p_subject;
        return;
    end if;
    if v_there is null and (select count(*) from {schema}.control c where c.service = p_service) >= p_most then
        stored := -1;
        return next;
        return;
    end if;
    insert into {schema}.control as c (service, subject, paused, concurrency, version, changed_by, changed_at)
    values (p_service, p_subject, p_paused, p_concurrency, v_next, p_by, clock_timestamp())
    on conflict (service, subject) do update
    set paused = excluded.paused, concurrency = excluded.concurrency, version = excluded.version,
        changed_by = excluded.changed_by, changed_at = excluded.changed_at;
    update {schema}.control_revision r set revision = v_next;
    stored := v_next;
    return next;
end
$$;
