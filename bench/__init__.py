"""`make bench`: how fast the product is, beside the floor, bare hashing and the Spring peer (docs/performance.md)."""
