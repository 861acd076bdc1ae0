select current_setting('max_connections') || ' ' || current_setting('fsync') || ' ' || current_setting('data_directory');
