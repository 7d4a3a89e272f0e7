from typing import Any

from django.db import migrations


def rewrite(apps: Any, schema_editor: Any) -> None:
    """Bring addresses whose domain is not in ASCII to the form that is compared (docs/adr/0039). Where another account
    has that form, both stay as they are: a person decides which of them is to keep the mailbox."""
    from authsvc.identity import normalize_email

    users = apps.get_model('authsvc', 'User').objects.using(schema_editor.connection.alias)
    for pk, email in users.filter(email__regex='[^ -~]').values_list('pk', 'email'):
        normalized = normalize_email(email)
        if normalized != email and not users.filter(email=normalized).exists():
            users.filter(pk=pk).update(email=normalized)


class Migration(migrations.Migration):

    dependencies = [
        ('authsvc', '0005_user_id_unique'),
    ]

    operations = [
        migrations.RunPython(rewrite, migrations.RunPython.noop, elidable=True),
    ]
