"""The page where staff paste a list of customers, or upload one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import pasting, updates
from ..models import Conversation
from ..quantities import number_words
from ..reasons import Failure
from ..selections import PASTED, selection_data
from .admin_view import AdminView
from .confirmation import reason_field
from .keeping import may_keep
from .launching import update_url
from .sight import sight_of
from .status_line import connection_problem, line_context

if TYPE_CHECKING:
    from .updates import BulkUpdateAdmin

VERBS = {"deactivate": False, "reactivate": True}
"""Of the form, and what they ask for."""


class PasteForm(forms.Form):
    """A list as text or as a file, and one verb and one reason for all of it."""

    lines = forms.CharField(
        label=gettext_lazy("One customer on each line"),
        required=False,
        strip=False,
        widget=forms.Textarea(attrs={"rows": 12, "cols": 60, "class": "vLargeTextField"}),
    )
    file = forms.FileField(
        label=gettext_lazy("Or a file"),
        help_text=gettext_lazy("CSV or Excel (.xlsx)"),
        required=False,
        widget=forms.FileInput(attrs={"accept": ".csv,.txt,.tsv,.xlsx"}),
    )
    verb = forms.ChoiceField(label=gettext_lazy("What to do with them"), widget=forms.RadioSelect)
    keep = forms.BooleanField(
        label=gettext_lazy("and keep them inactive"),
        help_text=gettext_lazy(
            "A standing order for each customer, for good, with the reason below."
        ),
        required=False,
    )
    reason = reason_field()

    def __init__(self, *args: Any, verbs: list[str], may_keep: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not may_keep or "deactivate" not in verbs:
            del self.fields["keep"]
        words = {"deactivate": _("Deactivate"), "reactivate": _("Reactivate")}
        self.fields["verb"].choices = [(verb, words[verb]) for verb in verbs]  # type: ignore[attr-defined]
        self.fields["verb"].initial = verbs[0] if len(verbs) == 1 else None

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        text, file = cleaned.get("lines", ""), cleaned.get("file")
        if cleaned.get("keep"):
            if cleaned.get("verb") == "reactivate":
                self.add_error("keep", _("Only what is deactivated can be kept inactive."))
            if not cleaned.get("reason"):
                self.add_error("reason", str(Failure("no_reason").as_sentence))
        if text.strip() and file:
            self.add_error("file", _("Paste the list or choose a file: not both."))
        elif not self.errors:
            try:
                cleaned["list"] = pasting.read_file(file) if file else pasting.read_text(text)
            except pasting.ListError as error:
                self.add_error("file" if file else "lines", str(error))
        return cleaned


class PasteView(AdminView):
    """Read a list and draft an update of it; the draft's confirm page shows what was found."""

    admin: BulkUpdateAdmin
    http_method_names = ["get", "head", "post"]
    verbs: list[str]

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        self.verbs = self.admin.verbs_of_menu(request)
        if not self.verbs:
            raise PermissionDenied
        return super().dispatch(request, *args, **kwargs)

    def get(self, request: HttpRequest, problem: str = "") -> HttpResponse:
        told = Failure(problem)
        status = told.reason.status if problem else 200
        return self.show(self.form(), told.advice, status=status)

    def post(self, request: HttpRequest) -> HttpResponse:
        if request.POST.get("verb") in VERBS and request.POST["verb"] not in self.verbs:
            raise PermissionDenied
        if request.POST.get("keep") and not may_keep(request):
            raise PermissionDenied
        if "q" in request.POST:  # what was too much for the search box
            return self.show(self.form(initial={"lines": request.POST["q"]}))
        form = self.form(request.POST, request.FILES)
        problem = connection_problem()
        if problem or not form.is_valid():
            return self.show(form)
        asked = form.cleaned_data
        site = self.admin.admin_site
        try:
            draft = updates.prepare_pasted(
                asked["list"],
                VERBS[asked["verb"]],
                requested_by=request.user,
                reason=asked["reason"],
                selection=selection_data(
                    PASTED,
                    lines=str(len(asked["list"])),
                    keep="yes" if asked.get("keep") else "",
                ),
                visible=sight_of(request, site).conversations,
            )
        except updates.SelectionError as error:
            form.add_error(None, error.failure.as_sentence)
            return self.show(form)
        return HttpResponseRedirect(update_url(site, "confirm", draft.pk))

    def form(self, *args: Any, **kwargs: Any) -> PasteForm:
        return PasteForm(*args, verbs=self.verbs, may_keep=may_keep(self.request), **kwargs)

    def show(self, form: PasteForm, problem: str = "", *, status: int = 200) -> HttpResponse:
        request = self.request
        request.current_app = self.admin.admin_site.name
        context = {
            **self.admin.admin_site.each_context(request),
            **line_context(request, self.admin.admin_site),
            "opts": self.admin.opts,
            "media": self.admin.media + form.media,
            "title": _("Paste a list"),
            "form": form,
            "bland_sms_too_large": problem,
            "app_label": self.admin.opts.app_label,
            "conversation_opts": Conversation._meta,
            "most_lines": number_words(pasting.MAX_LINES),
            "most_megabytes": pasting.MAX_FILE_BYTES // 1024**2,
        }
        return TemplateResponse(request, self.admin.paste_template, context, status=status)
