"""Pages that take more text than a site may accept at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

from django.core.exceptions import RequestDataTooBig, TooManyFieldsSent, TooManyFilesSent
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import URLPattern, path
from django.views.decorators.csrf import csrf_exempt


def tells_when_too_large(page: URLPattern) -> URLPattern:
    """The same address; its view is given the ``problem`` of a form that is too large."""
    return path(str(page.pattern), _told_when_too_large(page.callback), name=page.name)


def _told_when_too_large(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """A form that Django refuses for its size is answered by the page itself, with why.

    Django's check against forged requests would read the form before the view is called, and
    answer with a bare error. ``view`` makes that check itself.
    """

    @csrf_exempt
    @wraps(view)
    def guarded(request: HttpRequest) -> HttpResponseBase:
        try:
            request.POST  # noqa: B018  reads the form
        except (RequestDataTooBig, TooManyFieldsSent, TooManyFilesSent):
            request.method = "GET"  # nothing of it is used
            return view(request, problem="form_too_large")
        return view(request)

    return guarded
