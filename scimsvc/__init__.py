"""The SCIM services: a participant per SCIM server of SCIM_SERVERS, which provisions that server's users (RFC 7644)."""
