from django.contrib import admin

from customersvc.models import Customer
from participant.admin import ParticipantUserAdmin

admin.site.register(Customer, ParticipantUserAdmin)
