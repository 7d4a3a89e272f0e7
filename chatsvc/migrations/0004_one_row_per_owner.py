from django.db import migrations

from participant.upgrading import keep_newest_row_of_each_owner


class Migration(migrations.Migration):

    atomic = False

    dependencies = [
        ('chatsvc', '0003_versions_and_tombstones'),
    ]

    operations = [
        migrations.RunPython(keep_newest_row_of_each_owner('chatsvc', 'chatuser'), migrations.RunPython.noop),
    ]
