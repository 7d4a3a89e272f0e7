import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    """Only names in the code change. The table and its columns stay as they are, because processes of the previous
    release may still use them."""

    dependencies = [
        ("eventbus", "0002_topics_and_instances"),
    ]

    operations = [
        migrations.AlterModelTable(name="deadletteract", table="eventbus_deadletteract"),
        migrations.RenameModel(old_name="DeadLetterAct", new_name="DeadLetterAction"),
        migrations.AlterModelOptions(
            name="deadletteraction",
            options={
                "verbose_name": "action on a dead letter",
                "verbose_name_plural": "actions on dead letters",
                "ordering": ("id",),
                "default_permissions": (),
            },
        ),
        migrations.AlterField(
            model_name="deadletteraction",
            name="letter",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="actions", to="eventbus.deadletter"
            ),
        ),
        migrations.AlterField(
            model_name="deadletteraction",
            name="act",
            field=models.CharField(
                choices=[("waiting", "waiting"), ("replayed", "replayed"), ("discarded", "discarded")],
                db_column="act",
                max_length=16,
                verbose_name="action",
            ),
        ),
        migrations.RenameField(model_name="deadletteraction", old_name="act", new_name="action"),
    ]
