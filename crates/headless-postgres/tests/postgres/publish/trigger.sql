create table {schema}.users_table (number integer generated always as identity, text text not null);
create function {schema}.note() returns trigger language plpgsql as $$
begin
    perform {schema}.publish('notes.noted', jsonb_build_object('text', new.text), 'k', '{"by": "trigger"}');
    return null;
end
$$;
create trigger note after insert on {schema}.users_table for each row execute function {schema}.note();
