create table {schema}.pooled (number integer not null, text text not null)
