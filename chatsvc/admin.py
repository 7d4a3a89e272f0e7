from django.contrib import admin

from chatsvc.models import ChatUser
from participant.admin import ParticipantUserAdmin

admin.site.register(ChatUser, ParticipantUserAdmin)
