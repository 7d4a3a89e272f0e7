from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('authsvc', '0002_traffic'),
    ]

    # 0008 fills the column and 0009 builds its index. Both were done here at first, under the lock of this migration;
    # where that has run, they find nothing to do.
    operations = [
        migrations.AddField(
            model_name='signup',
            name='failures',
            field=models.CharField(blank=True, db_default='', default='', max_length=600, verbose_name='failures'),
        ),
    ]
