insert into effect (id, body) values ($1, $2)
