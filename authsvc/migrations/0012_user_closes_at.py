from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("authsvc", "0011_owner_index"),
    ]

    operations = [
        migrations.AddField(
            model_name="user",
            name="closes_at",
            field=models.DateTimeField(blank=True, editable=False, null=True, verbose_name="closes"),
        ),
    ]
