"""Row builders, one a file: documents to plans of rows. Dropping a file here registers it."""
