"""Infrastructure that every process needs. This is the bottom layer: it imports no other part of the project."""
