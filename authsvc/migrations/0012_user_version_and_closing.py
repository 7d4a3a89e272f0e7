from django.db import migrations, models


class Migration(migrations.Migration):
    """Not in the migration of the event transactions: sign-ups lock both tables, in the other order."""

    dependencies = [
        ("authsvc", "0011_owner_index"),
    ]

    operations = [
        migrations.AddField(
            model_name="user",
            name="version",
            field=models.PositiveIntegerField(db_default=1, default=1, editable=False, verbose_name="version"),
        ),
        migrations.AddField(
            model_name="user",
            name="closes_at",
            field=models.DateTimeField(blank=True, editable=False, null=True, verbose_name="closes"),
        ),
    ]
