from django.db import migrations, models

from runtime.database.indexes import AddUniqueOnline


class Migration(migrations.Migration):

    atomic = False

    dependencies = [
        ('chatsvc', '0003_versions_and_tombstones'),
    ]

    operations = [
        AddUniqueOnline(
            model_name='chatuser',
            constraint=models.UniqueConstraint(fields=('owner_signup_id',), name='chatuser_owner_unique'),
        ),
    ]
