"""How an email address is shown to people. It is kept and compared with its domain in ASCII (docs/adr/0039)."""

from contextlib import suppress

from runtime.scripts import mixes_scripts


def shown_address(address: str) -> str:
    """The address with its domain in the letters of its own script. A domain with a label that mixes scripts stays in
    ASCII, since it may imitate another, and so does one that is not valid."""
    local, at, domain = address.rpartition("@")
    if not at or "xn--" not in domain:
        return address
    # Loaded when it is needed: nearly every domain is written in ASCII.
    import idna

    with suppress(UnicodeError):
        readable = idna.decode(domain)
        if not any(map(mixes_scripts, readable.split("."))):
            return f"{local}{at}{readable}"
    return address
