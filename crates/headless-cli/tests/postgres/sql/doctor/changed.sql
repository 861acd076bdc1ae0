delete from headless.migration where version = 1000; update headless.migration set checksum = 'x' where version = 2;
