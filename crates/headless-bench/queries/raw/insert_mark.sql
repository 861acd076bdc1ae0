insert into raw_mark (grp, id, at) values ($1, $2, clock_timestamp()) on conflict do nothing
