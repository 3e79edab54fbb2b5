"""The pages of one update that change nothing: its progress, its parts, its files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse

from ..models import BulkUpdate
from .csv_export import csv_response
from .pasted_lines import LINES_HEADER, csv_rows
from .results_csv import CSV_HEADER, result_rows
from .sight import sight_of
from .update_base import UpdateView, own_update

if TYPE_CHECKING:
    from .updates import BulkUpdateAdmin


def progress_response(
    model_admin: BulkUpdateAdmin, request: HttpRequest, bulk_update: BulkUpdate
) -> JsonResponse:
    sight = sight_of(request, model_admin.admin_site)
    progress = model_admin.progress_of(request, bulk_update, sight)
    return JsonResponse(progress, headers={"Cache-Control": "no-store"})


class ReadingView(UpdateView):
    """A page of one update that changes nothing: everyone who may see the update may read it."""

    http_method_names = ["get", "head"]

    def may(self) -> bool:
        return True


class ProgressView(ReadingView):
    """How far an update is, as JSON."""

    def get(self, request: HttpRequest) -> HttpResponse:
        return progress_response(self.admin, request, self.bulk_update)


class PartsView(ReadingView):
    """The parts of its page that change while it runs, as HTML."""

    def get(self, request: HttpRequest) -> HttpResponse:
        request.current_app = self.admin.admin_site.name
        context = self.admin.page_context(request, self.bulk_update)
        return TemplateResponse(request, "admin/bland_sms/bulkupdate/parts.html", context)


class ResultsView(ReadingView):
    """Every item with its outcome, as CSV."""

    def get(self, request: HttpRequest) -> HttpResponseBase:
        rows = result_rows(self.bulk_update, self.sight)
        return csv_response(request, f"update-{self.bulk_update.pk}.csv", CSV_HEADER, rows)


class LinesView(ReadingView):
    """The lines of the pasted list that an update or a draft of one's own was made from, as CSV."""

    def find(self, object_id: str) -> BulkUpdate:
        try:
            return super().find(object_id)
        except Http404:
            return own_update(self.request, object_id)

    def get(self, request: HttpRequest) -> HttpResponseBase:
        rows = csv_rows(self.bulk_update, request, self.sight)
        return csv_response(request, f"list-{self.bulk_update.pk}.csv", LINES_HEADER, rows)
