insert into webhook (delivery, repository, number, event, body) values ($1, $2, $3, $4, $5)
on conflict (delivery) do nothing
