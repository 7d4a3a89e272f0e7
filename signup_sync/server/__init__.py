"""The web process below Django: uvicorn's protocols, limits of requests, HTTPS, security headers and health."""
