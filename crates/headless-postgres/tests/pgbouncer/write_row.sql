insert into case_rows (key, value) values ($1, $2)
