update {schema}.migration set checksum = '\x00' where version = 1
