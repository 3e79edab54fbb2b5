/* The page of an update, live: it shows how far the update is, and drives it where there is no
   worker. Without this script the page works by its buttons and by being reloaded. */
"use strict";
{
  const PAUSE = 1000; // milliseconds between two looks
  const PAUSE_AFTER_ERROR = 5000;
  const ANNOUNCE = 10000; // a screen reader hears of it no more often

  const watch = (box) => {
    const bar = box.querySelector("progress");
    const words = box.querySelector(".bland-sms-words");
    const token = document.querySelector("#bland-sms-run [name=csrfmiddlewaretoken]");
    let announced = Date.now();

    // What is seen changes at every look; what is read out loud only now and then.
    const seen = document.createElement("span");
    seen.setAttribute("aria-hidden", "true");
    seen.textContent = words.textContent;
    words.classList.add("bland-sms-unseen");
    words.after(seen);

    const show = (progress) => {
      bar.max = progress.total;
      bar.value = progress.done;
      seen.textContent = progress.words;
      if (Date.now() - announced > ANNOUNCE) {
        words.textContent = progress.words;
        announced = Date.now();
      }
    };

    const ask = async (drive) => {
      const headers = { Accept: "application/json" };
      if (!drive) {
        return fetch(box.dataset.url, { headers });
      }
      headers["X-CSRFToken"] = token.value;
      return fetch(box.dataset.runUrl, { method: "POST", headers });
    };

    const look = async (drive) => {
      let pause = PAUSE;
      let next = false;
      try {
        const answer = await ask(drive);
        if (!answer.ok) {
          throw new Error(answer.status);
        }
        const progress = await answer.json();
        show(progress);
        if (!progress.open) {
          window.location.reload();
          return;
        }
        next = progress.drive;
        pause = Math.max(next ? 0 : PAUSE, Math.min(progress.wait_seconds, 60) * 1000);
      } catch (error) {
        pause = PAUSE_AFTER_ERROR; // a server that restarts, a train in a tunnel
      }
      window.setTimeout(() => look(next), pause);
    };

    look(false);
  };

  const begin = () => {
    const box = document.getElementById("bland-sms-progress");
    if (box && box.dataset.open === "yes") {
      watch(box);
    }
  };

  if (document.readyState === "loading") {
    document.addEventListener("DOMContentLoaded", begin);
  } else {
    begin();
  }
}
