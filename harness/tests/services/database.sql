create database "odd/name";
