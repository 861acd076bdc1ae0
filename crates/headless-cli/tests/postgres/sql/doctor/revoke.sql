revoke delete on headless.outbox from app;
