"""What all pages of one update share: who may see it, and what happens without a database."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db import DatabaseError, InterfaceError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.http.response import HttpResponseBase
from django.utils.functional import cached_property

from ..database import is_passing
from ..models import BulkUpdate
from ..reasons import Failure
from .admin_view import AdminView
from .launching import update_url
from .sight import Sight, sight_of

if TYPE_CHECKING:
    from .updates import BulkUpdateAdmin

logger = logging.getLogger("bland_sms")


class UpdateView(AdminView):
    """A page of one update. Each request checks the method, then who may see it, then ``may``."""

    admin: BulkUpdateAdmin
    http_method_names = ["post"]
    bulk_update: BulkUpdate

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if str(request.method).lower() not in self.http_method_names:
            return self.http_method_not_allowed(request)
        self.bulk_update = self.find(unquote(kwargs["object_id"]))
        if not self.may():
            raise PermissionDenied
        try:
            return super().dispatch(request)
        except (DatabaseError, InterfaceError) as error:
            if not is_passing(error):
                raise
            logger.warning("the database is not available: %s", type(error).__name__)
            return self.tell_unavailable()

    def tell_unavailable(self) -> HttpResponse:
        """The database is held up or away: nothing was done, and trying again helps."""
        failure = Failure("database_unavailable")
        if self.request.headers.get("Accept") == "application/json":
            return JsonResponse({}, status=503, headers={"Retry-After": "10"})
        messages.error(self.request, str(failure))
        return self.back_to_page()

    def find(self, object_id: str) -> BulkUpdate:
        """The update, if this user may see it. Raises Http404."""
        bulk_update = self.admin.get_object(self.request, object_id)
        if bulk_update is None or not self.admin.has_view_permission(self.request, bulk_update):
            raise Http404
        return bulk_update

    def may(self) -> bool:
        """Whether this user may do this: continue, retry and cancel need the verb's permission."""
        return self.admin.has_verb_permission(self.request, self.bulk_update.is_active)

    @cached_property
    def sight(self) -> Sight:
        """What this user may see of it, and touch."""
        return sight_of(self.request, self.admin.admin_site)

    def url_of(self, name: str, **options: str) -> str:
        return update_url(self.admin.admin_site, name, self.bulk_update.pk, **options)

    def back_to_page(self) -> HttpResponse:
        return HttpResponseRedirect(self.url_of("change"))


def own_update(request: HttpRequest, object_id: str) -> BulkUpdate:
    """An update or a draft of the user's own. Raises Http404."""
    own = BulkUpdate.objects.filter(requested_by=request.user.pk)
    is_number = object_id.isdecimal() and len(object_id) < 19
    found = own.filter(pk=object_id).first() if is_number else None
    if found is None:
        raise Http404
    return found
