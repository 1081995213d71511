"""Worker processes that segment; the death of one does not stop the run."""
