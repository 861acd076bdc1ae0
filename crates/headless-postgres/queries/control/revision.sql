select r.revision from {schema}.control_revision r
