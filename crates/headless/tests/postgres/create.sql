create schema {schema};
create table {schema}.orders (name text primary key);
create table {schema}.invoices (name text not null, ordered text not null);
