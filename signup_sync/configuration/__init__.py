"""Reading and checking the settings: the environment, `.env`, and what production refuses."""
