insert into headless.migration (version, name, checksum) values (1000, '1000_later', 'x');
