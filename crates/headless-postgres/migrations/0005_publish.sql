-- Publishing from SQL: for triggers, for psql, and for services in other languages. The message joins the transaction
-- that it is published in.
--
-- The rules are those of the library's own types, since what a relay cannot read is a dead letter. Whoever publishes needs
-- EXECUTE on `publish_bytes` and nothing on the tables, so that nobody can go past the rules: see
-- docs/providers/postgres.md.

-- A UUID of version 7: its first 48 bits are the milliseconds since 1970 (RFC 9562, 5.7).
create function {schema}.uuid_v7() returns uuid
    language sql volatile parallel safe
    return encode(
        set_bit(set_bit(
            overlay(
                uuid_send(gen_random_uuid())
                placing substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3)
                from 1 for 6
            ), 52, 1), 53, 1),
        'hex')::uuid;

-- Refuses a text that is empty, too long, or has a control character (NUL cannot be in one).
create function {schema}.check_text(field text, value text, most integer) returns void
    language plpgsql immutable
as $$
begin
    if value = '' then
        raise invalid_parameter_value using message = format('%s is empty', field);
    elsif octet_length(convert_to(value, 'UTF8')) > most then
        raise program_limit_exceeded using message = format(
            '%s is %s bytes, the limit is %s', field, octet_length(convert_to(value, 'UTF8')), most);
    elsif value ~ '[\u0001-\u001f\u007f-\u009f]' then
        raise invalid_parameter_value using message = format('%s contains a control character', field);
    end if;
end
$$;

-- Refuses headers that the library would not set: see `HeaderName`, `HeaderValue` and `Headers`.
create function {schema}.check_headers(headers jsonb) returns void
    language plpgsql immutable
as $$
declare
    v_name text;
    v_value jsonb;
    v_bytes bigint := 0;
    v_count integer := 0;
begin
    if jsonb_typeof(headers) <> 'object' then
        raise invalid_parameter_value using message = 'headers must be a JSON object of texts';
    end if;
    for v_name, v_value in select h.key, h.value from jsonb_each(headers) h loop
        if v_name !~ '^[a-z0-9][a-z0-9._-]*$' or octet_length(v_name) > 128 then
            raise invalid_parameter_value using
                message = format('header name %s is refused', to_jsonb(left(v_name, 128))),
                hint = 'It must start with a-z or 0-9 and go on with a-z, 0-9, ''.'', ''_'' or ''-'', at most 128 bytes.';
        elsif v_name like 'hl-%' or v_name in ('content-type', 'traceparent', 'tracestate') then
            raise invalid_parameter_value using
                message = format('header name "%s" is reserved for the envelope', v_name);
        elsif jsonb_typeof(v_value) <> 'string' then
            raise invalid_parameter_value using message = format('header %s must be a text', v_name);
        elsif v_value <> '""' then
            perform {schema}.check_text('header ' || v_name, v_value #>> '{}', 16384);
        end if;
        v_count := v_count + 1;
        v_bytes := v_bytes + octet_length(v_name) + octet_length(convert_to(v_value #>> '{}', 'UTF8'));
    end loop;
    if v_count > 64 then
        raise program_limit_exceeded using message = format('headers are %s, the limit is 64', v_count);
    elsif v_bytes > 65536 then
        raise program_limit_exceeded using message = format('headers are %s bytes, the limit is 65536', v_bytes);
    end if;
end
$$;

-- Publishes bytes of this content type, which may be null: each consumer's own codec reads them then.
create function {schema}.publish_bytes(
    topic text, payload bytea, content_type text, key text, headers jsonb, type text
) returns uuid
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_id uuid := {schema}.uuid_v7();
    v_type text := coalesce(type, topic);
begin
    if topic is null or payload is null then
        raise null_value_not_allowed using
            message = format('%s is null', case when topic is null then 'topic' else 'payload' end);
    elsif topic !~ '^[a-z0-9][a-z0-9_-]*(\.[a-z0-9_-]+)*$' or octet_length(topic) > 90 then
        raise invalid_parameter_value using
            message = format('topic %s is refused', to_jsonb(left(topic, 100))),
            hint = 'It must start with a-z or 0-9 and go on with a-z, 0-9, ''_'', ''-'' and ''.'' between segments, at most 90 bytes.';
    elsif topic like '%.dead' then
        raise invalid_parameter_value using
            message = format('topic "%s" ends in ".dead", which is reserved for dead letters', topic);
    end if;
    perform {schema}.check_text('partition key', key, 512) where key is not null;
    perform {schema}.check_text('message type', v_type, 256);
    if jsonb_typeof(headers) <> 'null' then
        perform {schema}.check_headers(headers);
    end if;

    perform {schema}.outbox_put(
        v_id, topic, key, 0::smallint, clock_timestamp(), content_type,
        (jsonb_build_object('hl-type', v_type) || coalesce(nullif(headers, 'null'), '{}'))::text, payload
    );
    -- Within the transaction, so that whoever commits need not know of it. It makes commits wait for each other: where
    -- many publish at once, `set headless.wake = off` leaves it to the poll.
    if current_setting('headless.wake', true) is distinct from 'off' then
        perform pg_notify('headless_{schema}', 'store');
    end if;
    return v_id;
end
$$;

revoke execute on function {schema}.publish_bytes(text, bytea, text, text, jsonb, text) from public;

-- Publishes a JSON document and returns the message's id.
create function {schema}.publish(
    topic text, payload jsonb, key text default null, headers jsonb default null, type text default null
) returns uuid
    language sql
    return {schema}.publish_bytes(topic, convert_to(payload::text, 'UTF8'), 'application/json', key, headers, type);

-- Publishes a text. What has no type of its own in SQL, as a literal, comes here too: a JSON document among them, so that
-- the content type is left to the consumer's codec.
create function {schema}.publish(
    topic text, payload text, key text default null, headers jsonb default null, type text default null
) returns uuid
    language sql
    return {schema}.publish_bytes(topic, convert_to(payload, 'UTF8'), null, key, headers, type);

-- Publishes bytes; the content type is left to the consumer's codec.
create function {schema}.publish(
    topic text, payload bytea, key text default null, headers jsonb default null, type text default null
) returns uuid
    language sql
    return {schema}.publish_bytes(topic, payload, null, key, headers, type);
