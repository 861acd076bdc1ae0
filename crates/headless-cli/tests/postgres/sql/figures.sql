select
    (select count(*) from {schema}.published) as published,
    (select count(*) from {schema}.handled) as handled,
    (select count(distinct message) from {schema}.handled) as messages,
    (select count(distinct idempotency_key) from {schema}.handled) as idempotency_keys,
    (select count(*) from {schema}.handled where message not in (select message from {schema}.published)) as strangers,
    (
        select count(*)
        from (
            select line, max(line) over (partition by key order by position rows unbounded preceding) as latest
            from {schema}.handled
        ) handled
        where line < latest
    ) as overtaken
