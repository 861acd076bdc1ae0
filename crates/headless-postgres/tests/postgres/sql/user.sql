create user {schema}
