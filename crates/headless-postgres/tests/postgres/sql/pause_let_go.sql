-- Between a claim's looks at what is held, and its end of what is over.
create trigger pause before delete on {schema}.outbox_batch execute function {schema}.pause_trigger()
