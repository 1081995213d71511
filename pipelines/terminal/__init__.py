"""Output on a terminal: lines, JSON, bars, live displays, and the end by a signal."""
