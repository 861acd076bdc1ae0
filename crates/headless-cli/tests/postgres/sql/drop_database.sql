drop database if exists {schema} with (force)
