/* Says so when a page has been open for a while, or comes back from the browser's memory: what it
   shows may have changed since. The page of an update that is running keeps itself up to date. */
"use strict";
{
  const FRESH = 5 * 60 * 1000; // milliseconds
  const LOOK = 15 * 1000;

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

  if (document.readyState === "loading") {
    document.addEventListener("DOMContentLoaded", begin);
  } else {
    begin();
  }
}
