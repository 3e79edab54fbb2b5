/* Lets a screen reader say what came of a button, what our other scripts ask for, and what a list
   shows by its looks alone.
   Says so when a page has been open for a while, or comes back from the browser's memory: what it
   shows may have changed since. The page of an update that is running keeps itself up to date. */
"use strict";
{
  const FRESH = 5 * 60 * 1000; // milliseconds
  const LOOK = 15 * 1000;
  const SAID = 10 * 1000; // then it is gone: who reads the page does not come upon it again

  const listen = () => {
    const said = document.getElementById("bland-sms-said");
    if (!said) {
      return;
    }
    let last = 0;
    const say = (text) => {
      said.textContent = text;
      window.clearTimeout(last);
      last = window.setTimeout(() => said.replaceChildren(), SAID);
    };
    document.addEventListener("bland-sms-say", (event) => say(event.detail));
    // The messages that came with a page are not news to the browser, which announces none of them.
    const told = [...document.querySelectorAll(".messagelist li")];
    if (told.length) {
      say(told.map((message) => message.innerText.trim()).join(" "));
    }
  };

  const begin = () => {
    const line = document.getElementById("bland-sms-stale");
    if (!line) {
      return;
    }
    const shown = Date.now();
    const look = () => {
      const live = document.querySelector("#bland-sms-progress[data-open=yes]");
      if (!live && Date.now() - shown > FRESH) {
        line.hidden = false;
      }
    };
    window.setInterval(look, LOOK);
    document.addEventListener("visibilitychange", look);
    window.addEventListener("pageshow", (event) => {
      if (event.persisted) {
        line.hidden = false;
      }
    });
  };

  // What Django's list tells by its looks alone: which filter is chosen, and how it is sorted.
  const describe = () => {
    for (const link of document.querySelectorAll("#changelist-filter li.selected > a")) {
      link.setAttribute("aria-current", "true");
    }
    for (const header of document.querySelectorAll("#result_list th.sorted")) {
      const isAscending = header.classList.contains("ascending");
      header.setAttribute("aria-sort", isAscending ? "ascending" : "descending");
    }
    const heading = document.querySelector("h1");
    if (heading) {
      document.getElementById("result_list")?.setAttribute("aria-label", heading.innerText.trim());
    }
  };

  const start = () => {
    listen();
    describe();
    begin();
  };

  if (document.readyState === "loading") {
    document.addEventListener("DOMContentLoaded", start);
  } else {
    start();
  }
}
