"""Repair auth's records after its database was restored from a backup (docs/operations.md): the services may have
applied changes and removals that the backup doesn't have.
"""

from authsvc.models import NoSuchAccountError, User
from authsvc.reconcile.events import Finding
from authsvc.signups.changes import publish_again, remove_account
from runtime.security_log import log_security_event, operator


def repair_record(finding: Finding) -> bool:
    """Remove an account that was removed after the backup, or let auth's record replace a newer copy. Every service
    follows, as after any removal or change. Return False if the account no longer exists."""
    user = User.objects.filter(owner_signup_id=str(finding.owner_signup_id)).first()
    if user is None:
        return False
    try:
        if finding.kind == "newer":
            publish_again(user, above=finding.version)
            return True
        remove_account(user)
    except NoSuchAccountError:
        return False
    log_security_event("account_removed", actor=operator(), detail=str(finding.owner_signup_id))
    return True
