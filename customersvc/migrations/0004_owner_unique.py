from django.db import migrations, models

from runtime.database.indexes import AddUniqueOnline


class Migration(migrations.Migration):

    atomic = False

    dependencies = [
        ('customersvc', '0003_versions_and_tombstones'),
    ]

    operations = [
        AddUniqueOnline(
            model_name='customer',
            constraint=models.UniqueConstraint(fields=('owner_signup_id',), name='customer_owner_unique'),
        ),
    ]
