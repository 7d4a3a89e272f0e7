"""Adds a participant to the project, and removes one: `manage.py startservice` and `manage.py removeservice`.

`names` checks the name, `files` has the files that belong to one participant, `shared_files` edits the files that name
all participants, and `catalogue` edits the Korean translations.
"""
