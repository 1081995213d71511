"""`segmed demo`: the whole story on the bundled sample; no server, no network."""
