from django.db import migrations, models

from runtime.database.indexes import AddIndexOnline


class Migration(migrations.Migration):

    atomic = False

    dependencies = [
        ('authsvc', '0003_failure_groups'),
    ]

    operations = [
        AddIndexOnline(
            model_name='signup',
            index=models.Index(condition=models.Q(('password__gt', '')), fields=['created_at', 'owner_signup_id'], name='signup_keeps_hash'),
        ),
    ]
