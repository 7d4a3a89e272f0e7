from django.db import migrations, models

from runtime.database.indexes import AddUniqueOnline


class Migration(migrations.Migration):

    atomic = False

    dependencies = [
        ('chatsvc', '0004_one_row_per_owner'),
    ]

    operations = [
        AddUniqueOnline(
            model_name='chatuser',
            constraint=models.UniqueConstraint(fields=('owner_signup_id',), name='chatuser_owner_unique'),
        ),
    ]
