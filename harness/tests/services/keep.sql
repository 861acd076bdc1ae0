create table if not exists kept (word text);
insert into kept values ('kept');
