insert into repository as r (name, received) values ($1, 1)
on conflict (name) do update set received = r.received + 1
returning received
