from django.db import migrations, models

from runtime.database.indexes import AddIndexOnline


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("authsvc", "0012_user_version_and_closing"),
    ]

    operations = [
        AddIndexOnline(
            model_name="user",
            index=models.Index(
                fields=["closes_at"], name="user_closing", condition=models.Q(closes_at__isnull=False)
            ),
        ),
    ]
