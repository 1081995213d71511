"""Review of an archive: opinions of people on its results, and the label maps that they correct."""
