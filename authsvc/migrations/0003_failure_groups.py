from django.db import migrations, models


def name_failures(apps, schema_editor):
    """The red sign-ups that are there already. What `failures` holds is said at SignUpState.failures."""
    signups = apps.get_model("authsvc", "SignUp").objects.using(schema_editor.connection.alias)
    chunk = []
    for signup in signups.filter(failed_count__gt=0).only("id", "lights").iterator(chunk_size=500):
        red = {name: light.get("reason") or "" for name, light in signup.lights.items() if light["status"] == "FAIL"}
        lines = (": ".join(filter(None, (name, " ".join(reason.split())))) for name, reason in red.items())
        signup.failures = "\n".join(lines)[:600]
        chunk.append(signup)
        if len(chunk) == 500:
            signups.bulk_update(chunk, ["failures"])
            chunk = []
    signups.bulk_update(chunk, ["failures"])


class Migration(migrations.Migration):

    dependencies = [
        ('authsvc', '0002_traffic'),
    ]

    operations = [
        migrations.AddField(
            model_name='signup',
            name='failures',
            field=models.CharField(blank=True, db_default='', default='', max_length=600, verbose_name='failures'),
        ),
        migrations.RunPython(name_failures, migrations.RunPython.noop, elidable=True),
        migrations.AddIndex(
            model_name='signup',
            index=models.Index(condition=models.Q(('failed_count__gt', 0)), fields=['failures', 'id'], name='signup_failures'),
        ),
    ]
