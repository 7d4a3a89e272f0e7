"""`make bench`: measure the product against the floor, bare hashing and the Spring peer (docs/performance.md)."""
