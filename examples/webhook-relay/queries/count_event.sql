insert into event_statistics as s (repository, event, handled) values ($1, $2, 1)
on conflict (repository, event) do update set handled = s.handled + 1
