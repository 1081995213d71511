"""The review page: results of an archive in a browser on this machine, accepted or corrected."""
