"""One Prefect flow a file; each body reads like a table of contents."""
