from django.db import migrations, models

from runtime.database.indexes import AddIndexOnline


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("authsvc", "0013_closing_index"),
    ]

    operations = [
        AddIndexOnline(
            model_name="eventtransaction",
            index=models.Index(
                fields=["kind", "created_at"], name="signup_kind", condition=models.Q(kind__in=["change", "removal"])
            ),
        ),
    ]
