"""The admin site of the whole project."""
