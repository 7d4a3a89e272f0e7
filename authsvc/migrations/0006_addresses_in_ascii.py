from contextlib import suppress
from typing import Any

from django.db import IntegrityError, migrations

from runtime.database.batches import in_batches


def rewrite(apps: Any, schema_editor: Any) -> None:
    """Bring addresses whose domain is not in ASCII to the form that is compared (docs/adr/0039). Where another account
    has that form, both stay as they are: a person decides which of them is to keep the mailbox."""
    from runtime.equality import normalize_email

    users = apps.get_model('authsvc', 'User').objects.using(schema_editor.connection.alias)
    for batch in in_batches(users.filter(email__regex='[^ -~]').only('pk', 'email')):
        for user in batch:
            normalized = normalize_email(user.email)
            if normalized != user.email and not users.filter(email=normalized).exists():
                # Each in a transaction of its own. Somebody may have signed up or changed the address just now.
                with suppress(IntegrityError):
                    users.filter(pk=user.pk, email=user.email).update(email=normalized)


class Migration(migrations.Migration):

    atomic = False

    dependencies = [
        ('authsvc', '0005_user_id_unique'),
    ]

    operations = [
        migrations.RunPython(rewrite, migrations.RunPython.noop, elidable=True),
    ]
