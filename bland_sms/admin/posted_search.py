"""The search box of our lists is posted: a long list of numbers never makes a long address.

What is short goes on to ``?q=`` of the list. What is long is kept with the session, and ``q`` names
it; what is more than one search can take goes on to the page for pasted lists. gunicorn refuses a
request line of more than 4,094 characters, and the search is quoted again in other addresses.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Any

from django.contrib import messages
from django.contrib.admin.views.main import SEARCH_VAR
from django.contrib.sessions.backends.signed_cookies import SessionStore as CookieSession
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.http.response import HttpResponseBase
from django.urls import NoReverseMatch, reverse
from django.utils.http import urlencode
from django.utils.translation import gettext as _

from ..models import Conversation
from ..reasons import Failure
from ..search import MAX_CHARACTERS, parse_search
from .admin_view import AdminView
from .launching import FILTERS

LONGEST_QUERY = 2000
"""Characters of a list's query, as the address of another page quotes it."""
KEPT = "bland_sms_searches"
"""Session key: long searches by their names."""
MOST_KEPT = 5
_NAME = re.compile(r"list:[0-9a-f]{16}")


def searched(request: HttpRequest, text: str) -> str:
    """What a search of an address asks for. A name that is kept no more stays: it finds nothing."""
    if not is_name(text):
        return text
    return str(request.session.get(KEPT, {}).get(text, text))


def is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def _keep(request: HttpRequest, text: str) -> str:
    text = text[: MAX_CHARACTERS + 1]
    name = f"list:{sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"
    kept = {one: said for one, said in request.session.get(KEPT, {}).items() if one != name}
    newest = [*kept.items(), (name, text)][-MOST_KEPT:]
    request.session[KEPT] = dict(newest)
    return name


class PostedSearchView(AdminView):
    """Where the search box of a list leads to; and from there on to the list."""

    http_method_names = ["get", "head", "post"]

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if not self.admin.has_view_permission(request):
            raise PermissionDenied
        return super().dispatch(request, *args, **kwargs)

    def get(self, request: HttpRequest, problem: str = "") -> HttpResponse:
        """After a login, which lets nobody post; or the form was too large for the site."""
        if problem:
            messages.error(request, str(Failure(problem).as_sentence))
        return self._to_list(request.GET.copy())

    def post(self, request: HttpRequest) -> HttpResponse:
        query = request.POST.copy()
        query.pop("csrfmiddlewaretoken", None)
        text = query.get(SEARCH_VAR, "")
        if len(urlencode({FILTERS: query.urlencode()})) <= LONGEST_QUERY:
            return self._to_list(query)
        can_keep = not isinstance(request.session, CookieSession)  # a cookie has no room for it
        paste = self._paste_url()
        if paste and (not can_keep or parse_search(text).hint == "too_many"):
            return HttpResponseRedirect(paste, preserve_request=True)
        if can_keep:
            query[SEARCH_VAR] = _keep(request, text)
            return self._to_list(query)
        messages.error(request, _("At most 200 numbers or ids at once."))
        del query[SEARCH_VAR]
        return self._to_list(query)

    def _to_list(self, query: QueryDict) -> HttpResponse:
        opts, site = self.admin.opts, self.admin.admin_site
        url = reverse(f"admin:{opts.app_label}_{opts.model_name}_changelist", current_app=site.name)
        return HttpResponseRedirect(f"{url}?{query.urlencode()}" if query else url)

    def _paste_url(self) -> str:
        """Where a list of customers can be pasted, if the box searches for customers."""
        if self.admin.model is not Conversation:
            return ""
        site = self.admin.admin_site
        try:
            url = reverse("admin:bland_sms_bulkupdate_paste", current_app=site.name)
        except NoReverseMatch:
            return ""
        may = self.admin.has_update_permission
        return url if any(may(self.request, is_active) for is_active in (False, True)) else ""
