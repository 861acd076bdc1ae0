create table case_rows (key text primary key check (key <> ''), value text not null)
