"""Our pages under other people's themes and with other people's mixins."""

from __future__ import annotations

from typing import Any

import pytest
from django.conf import settings
from django.contrib import admin
from django.contrib.admin.utils import quote
from django.test import Client, override_settings

from bland_sms import updates
from bland_sms.admin import ConversationAdmin, SyncRunAdmin, base
from bland_sms.models import Conversation

BASE = "<title>{{ title }}</title>{% block content %}{% endblock %}"
FORM = (
    '{% extends "admin/base_site.html" %}{% block content %}<form method="post">{% csrf_token %}'
    "{% block form_top %}{% endblock %}{% block after_field_sets %}{% endblock %}</form>"
    "{% endblock %}"
)
LIST = '{% extends "admin/base_site.html" %}{% block content %}<table></table>{% endblock %}'
THEME = {
    "admin/base_site.html": BASE,
    "admin/change_form.html": FORM,
    "admin/change_list.html": LIST,
}


class Mixin(admin.ModelAdmin):  # type: ignore[type-arg]
    """As guardian's, import-export's and reversion's, which know nothing of our pages."""

    change_form_template = "mixin/change_form.html"
    change_list_template = "mixin/change_list.html"


class MixinFirst(Mixin, ConversationAdmin):
    pass


class MixinLast(ConversationAdmin, Mixin):
    pass


class HostsOwn(ConversationAdmin):
    change_form_template = "host/change_form.html"


class MixinBeforeHostsOwn(Mixin, HostsOwn):
    pass


@pytest.mark.parametrize("admin_class", [MixinFirst, MixinLast])
def test_templates__a_mixin_does_not_replace_ours(admin_class: Any) -> None:
    assert admin_class.change_form_template == ConversationAdmin.change_form_template
    assert admin_class.change_list_template == ConversationAdmin.change_list_template


@pytest.mark.parametrize("admin_class", [HostsOwn, MixinBeforeHostsOwn])
def test_templates__the_hosts_own_class_names_one(admin_class: Any) -> None:
    assert admin_class.change_form_template == "host/change_form.html"
    assert admin_class.change_list_template == ConversationAdmin.change_list_template


def test_templates__of_a_mixin_where_we_have_none() -> None:
    class WithMixin(Mixin, SyncRunAdmin):
        pass

    assert WithMixin.change_list_template == Mixin.change_list_template


@pytest.fixture
def bare_theme() -> Any:
    """A theme with no block but content and what stands in a form."""
    [engine] = settings.TEMPLATES
    loaders = [
        ("django.template.loaders.locmem.Loader", THEME),
        "django.template.loaders.app_directories.Loader",
    ]
    options = {**engine["OPTIONS"], "loaders": loaders}
    bare = {**engine, "APP_DIRS": False, "DIRS": [], "OPTIONS": options}
    with override_settings(TEMPLATES=[bare]):
        yield


@pytest.mark.django_db
@pytest.mark.usefixtures("bare_theme")
def test_pages__in_a_theme_without_any_other_block(admin_client: Client, sandbox: Any) -> None:
    conversation = Conversation.objects.create(
        id="conv_1", user_number="+15550001111", is_active=True
    )
    page = f"/admin/bland_sms/conversation/{quote(conversation.pk)}/"
    shown = admin_client.get(f"{page}change/").content.decode()
    for expected in (
        ">+15550001111<",
        f'action="{page}deactivate/?at=',
        f'action="{page}refresh/?at=',
        f'href="{page}history/"',
        'id="bland-sms-deactivate-customer"',
        ">Transcript<",
    ):
        assert expected in shown
    listed = admin_client.get("/admin/bland_sms/conversation/").content.decode()
    assert "/admin/bland_sms/conversation/sync/" in listed


@pytest.mark.django_db
@pytest.mark.usefixtures("bare_theme")
def test_update_pages__in_a_theme_without_any_other_block(
    admin_client: Client, admin_user: Any, sandbox: Any
) -> None:
    Conversation.objects.create(id="conv_1", user_number="+15550001111", is_active=True)
    draft = updates.prepare(["conv_1"], is_active=False, requested_by=admin_user)
    page = f"/admin/bland_sms/bulkupdate/{draft.pk}/"
    confirm = admin_client.get(f"{page}confirm/").content.decode()
    assert "<h1>Deactivate 1 conversation</h1>" in confirm
    updates.start(draft)
    shown = admin_client.get(f"{page}change/").content.decode()
    assert "<h1>Deactivate 1 conversation</h1>" in shown
    assert f"Update {draft.pk}" in shown
    for form in ("run", "cancel", "retry", "undo"):
        assert f'<form id="bland-sms-{form}"' in shown


def test_actions__unfold_is_told_of_each_menu() -> None:
    """unfold shows its button Run when Alpine's ``action`` has a value."""
    ours = [one for one in admin.site._registry.values() if isinstance(one, base.MirroredAdmin)]
    assert len(ours) > 3
    for model_admin in ours:
        form = model_admin.action_form()
        assert form.fields["action"].widget.attrs["x-model"] == "action", model_admin
