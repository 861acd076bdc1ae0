create database {schema}
