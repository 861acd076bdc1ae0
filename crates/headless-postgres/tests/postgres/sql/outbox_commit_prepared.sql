commit prepared 'headless late'
