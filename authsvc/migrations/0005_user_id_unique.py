from django.db import migrations, models

from runtime.database.indexes import AddUniqueOnline


class Migration(migrations.Migration):

    atomic = False

    dependencies = [
        ('authsvc', '0004_signup_keeps_hash'),
    ]

    operations = [
        AddUniqueOnline(
            model_name='user',
            constraint=models.UniqueConstraint(fields=('user_id',), name='user_id_unique', violation_error_message='This user ID is taken.'),
        ),
    ]
