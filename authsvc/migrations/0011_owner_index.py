from django.db import migrations, models

from runtime.database.indexes import AddIndexOnline


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("authsvc", "0010_event_transactions"),
    ]

    operations = [
        AddIndexOnline(
            model_name="eventtransaction",
            index=models.Index(fields=["owner_signup_id"], name="signup_owner"),
        ),
    ]
