"""Django's hooks around every page: middleware, message storage, and the view for CSRF failures."""
