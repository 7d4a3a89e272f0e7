from django.db import migrations, models

from runtime.database.indexes import AddIndexOnline


class Migration(migrations.Migration):

    atomic = False

    dependencies = [
        ('authsvc', '0008_fill_failures'),
    ]

    operations = [
        AddIndexOnline(
            model_name='signup',
            index=models.Index(condition=models.Q(('failed_count__gt', 0)), fields=['failures', 'id'], name='signup_failures'),
        ),
    ]
