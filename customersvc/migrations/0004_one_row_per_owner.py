from django.db import migrations

from participant.upgrading import keep_newest_row_of_each_owner


class Migration(migrations.Migration):

    atomic = False

    dependencies = [
        ('customersvc', '0003_versions_and_tombstones'),
    ]

    operations = [
        migrations.RunPython(keep_newest_row_of_each_owner('customersvc', 'customer'), migrations.RunPython.noop),
    ]
