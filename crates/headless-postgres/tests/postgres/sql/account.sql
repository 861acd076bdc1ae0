create schema {schema};
create table {schema}.account (sum bigint not null);
insert into {schema}.account values (0)
