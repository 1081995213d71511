"""`segmed demo`: the whole chain on the bundled sample; no server, no network."""
