insert into statistics as s (repository, handled, last_number, gaps) values ($1, 1, $2, ($2 <> 1)::int)
on conflict (repository) do update set
    handled = s.handled + 1,
    last_number = excluded.last_number,
    gaps = s.gaps + (excluded.last_number <> s.last_number + 1)::int
