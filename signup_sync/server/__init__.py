"""The web process below Django: uvicorn's protocols, request limits, HTTPS, security headers and health."""
