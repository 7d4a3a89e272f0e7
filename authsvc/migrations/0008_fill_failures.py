from typing import Any

from django.db import migrations

from runtime.database.batches import change_in_batches


def name_failures(apps: Any, schema_editor: Any) -> None:
    """Name the failures of sign-ups that were red before there was the column. TransactionState.failures has its format."""
    signups = apps.get_model('authsvc', 'SignUp').objects.using(schema_editor.connection.alias)

    def name(signup: Any) -> None:
        red = {name: light.get('reason') or '' for name, light in signup.lights.items() if light['status'] == 'FAIL'}
        lines = (': '.join(filter(None, (name, ' '.join(reason.split())))) for name, reason in red.items())
        signup.failures = '\n'.join(lines)[:600]

    change_in_batches(signups.filter(failed_count__gt=0, failures='').only('id', 'lights'), name, fields=['failures'])


class Migration(migrations.Migration):

    atomic = False

    dependencies = [
        ('authsvc', '0007_unconfirmed_signups'),
    ]

    operations = [
        migrations.RunPython(name_failures, migrations.RunPython.noop, elidable=True),
    ]
