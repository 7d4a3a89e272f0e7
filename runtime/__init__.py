"""What every process needs, whatever it does: the bottom layer, which imports no other part of the project."""
