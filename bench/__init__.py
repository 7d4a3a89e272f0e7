"""`make bench`: measure the product against the floor, bare hashing and the peers (docs/performance.md)."""
