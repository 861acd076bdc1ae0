drop table if exists effect;
create table effect (id uuid primary key, body bytea not null);
drop table if exists raw_mark;
create table raw_mark (grp text not null, id uuid not null, at timestamptz not null, primary key (grp, id))
