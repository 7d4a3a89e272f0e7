import django.utils.timezone
from django.db import migrations, models

import authsvc.models


class Migration(migrations.Migration):
    """The table of sign-ups becomes the table of event transactions. It keeps its name, and every new column has a
    default in the database, because processes of the previous release may still write to it."""

    dependencies = [
        ("authsvc", "0009_failures_index"),
    ]

    operations = [
        migrations.AlterModelTable(name="signup", table="authsvc_signup"),
        migrations.RenameModel(old_name="SignUp", new_name="EventTransaction"),
        migrations.AlterModelOptions(
            name="eventtransaction",
            options={
                "verbose_name": "sign-up, change or removal",
                "verbose_name_plural": "sign-ups, changes and removals",
                "default_permissions": (),
                "permissions": [
                    ("view_signup", "Can view sign-ups, changes and removals"),
                    ("replay_signup", "May replay sign-ups"),
                ],
            },
        ),
        migrations.AlterField(
            model_name="eventtransaction",
            name="id",
            field=models.UUIDField(
                default=authsvc.models.new_signup_id,
                editable=False,
                primary_key=True,
                serialize=False,
                verbose_name="ID",
            ),
        ),
        migrations.AddField(
            model_name="eventtransaction",
            name="kind",
            field=models.CharField(
                choices=[("signUp", "Sign-up"), ("change", "Change"), ("removal", "Removal")],
                db_default="signUp",
                default="signUp",
                max_length=16,
                verbose_name="kind",
            ),
        ),
        migrations.AddField(
            model_name="eventtransaction",
            name="record_version",
            field=models.PositiveIntegerField(db_default=1, default=1, verbose_name="version of the account"),
        ),
        migrations.AddField(
            model_name="eventtransaction",
            name="changed_fields",
            field=models.CharField(blank=True, db_default="", default="", max_length=60, verbose_name="changed"),
        ),
        migrations.CreateModel(
            name="SignUp",
            fields=[],
            options={
                "verbose_name": "sign-up",
                "verbose_name_plural": "sign-ups",
                "proxy": True,
                "default_permissions": (),
                "indexes": [],
                "constraints": [],
            },
            bases=("authsvc.eventtransaction",),
        ),
        migrations.CreateModel(
            name="RemovedAccount",
            fields=[
                (
                    "owner_signup_id",
                    models.UUIDField(editable=False, primary_key=True, serialize=False, verbose_name="created by sign-up"),
                ),
                ("version", models.PositiveIntegerField(verbose_name="version")),
                ("removed_at", models.DateTimeField(default=django.utils.timezone.now, verbose_name="removed")),
            ],
            options={
                "verbose_name": "removed account",
                "verbose_name_plural": "removed accounts",
                "default_permissions": (),
            },
        ),
    ]
