create user app;
