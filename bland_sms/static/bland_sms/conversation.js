/* The page of a conversation: copies its messages where they never were, and shows them. Without
   this script a button does. */
"use strict";
{
  const fields = () => [...document.querySelectorAll("input[name=reason]")];

  // The page is loaded again under the hands of who has begun to type.
  const reload = () => {
    const place = fields().indexOf(document.activeElement);
    const values = fields().map((field) => field.value);
    if (place >= 0 || values.some(Boolean)) {
      window.history.replaceState({ blandSmsTyped: { place, values } }, "");
    }
    window.location.reload();
  };

  const restore = () => {
    const kept = window.history.state?.blandSmsTyped;
    if (!kept) {
      return;
    }
    window.history.replaceState(null, "");
    const found = fields();
    if (found.length === kept.values.length) {
      found.forEach((field, number) => {
        field.value = kept.values[number];
      });
      found[kept.place]?.focus();
    }
  };

  const begin = () => {
    restore();
    const box = document.getElementById("bland-sms-copy");
    const form = document.getElementById("bland-sms-copy-form");
    if (!box || !form) {
      return;
    }
    const note = box.querySelector(".bland-sms-note");
    const token = form.querySelector("[name=csrfmiddlewaretoken]");
    const headers = { Accept: "application/json", "X-CSRFToken": token.value };
    const tell = (text) => {
      note.textContent = text;
      document.dispatchEvent(new CustomEvent("bland-sms-say", { detail: text }));
    };
    tell(box.dataset.wait);
    fetch(form.action, { method: "POST", headers })
      .then((answer) => answer.json())
      .then(({ problem }) => {
        if (problem) {
          tell(problem);
          note.classList.add("bland-sms-warning");
        } else {
          reload();
        }
      })
      .catch(() => {
        tell(box.dataset.failed);
        note.classList.add("bland-sms-warning");
      });
  };

  if (document.readyState === "loading") {
    document.addEventListener("DOMContentLoaded", begin);
  } else {
    begin();
  }
}
