/* The page of a conversation: copies its messages where they never were, and shows them. Without
   this script a button does. */
"use strict";
{
  const begin = () => {
    const box = document.getElementById("bland-sms-copy");
    const form = document.getElementById("bland-sms-copy-form");
    if (!box || !form) {
      return;
    }
    const note = box.querySelector("[role=status]");
    const token = form.querySelector("[name=csrfmiddlewaretoken]");
    const headers = { Accept: "application/json", "X-CSRFToken": token.value };
    note.textContent = box.dataset.wait;
    fetch(form.action, { method: "POST", headers })
      .then((answer) => answer.json())
      .then(({ problem }) => {
        if (problem) {
          note.textContent = problem;
          note.classList.add("bland-sms-warning");
        } else {
          window.location.reload();
        }
      })
      .catch(() => {
        note.textContent = box.dataset.failed;
        note.classList.add("bland-sms-warning");
      });
  };

  if (document.readyState === "loading") {
    document.addEventListener("DOMContentLoaded", begin);
  } else {
    begin();
  }
}
