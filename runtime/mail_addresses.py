"""Display form of email addresses. They are stored and compared with the domain in ASCII (docs/adr/0039)."""

from contextlib import suppress

from runtime.scripts import mixes_scripts


def shown_address(address: str) -> str:
    """Return the address with its domain in Unicode.

    A domain stays in ASCII if it is invalid or if a label mixes scripts, because it may imitate another domain."""
    local, at, domain = address.rpartition("@")
    if not at or "xn--" not in domain:
        return address
    # Imported lazily: nearly every domain is ASCII.
    import idna

    with suppress(UnicodeError):
        readable = idna.decode(domain)
        if not any(map(mixes_scripts, readable.split("."))):
            return f"{local}{at}{readable}"
    return address
