from django.db import migrations


class Migration(migrations.Migration):
    # The unique constraint has an index of its own.

    dependencies = [
        ('chatsvc', '0005_owner_unique'),
    ]

    operations = [
        migrations.RemoveIndex(
            model_name='chatuser',
            name='chatuser_owner',
        ),
    ]
