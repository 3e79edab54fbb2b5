/* The page of an update, live: it shows how far the update is, and drives it where there is no
   worker. Without this script the page works by its buttons and by being reloaded. */
"use strict";
{
  const PAUSE = 1000; // milliseconds between two looks
  const PAUSE_AFTER_ERROR = 5000;
  const LONGEST = 10000; // so soon it notices that it is logged out
  const ANNOUNCE = 10000; // a screen reader hears of it no more often
  const PARTS = 5000; // the rows and causes are fetched no more often, unless the state changes

  // Changes only what is different: the focus stays, and the place up to which a page was read.
  const renew = (old, fresh) => {
    const before = [...old.childNodes];
    const after = [...fresh.childNodes];
    if (before.length !== after.length) {
      old.replaceChildren(...after);
      return;
    }
    before.forEach((one, place) => {
      const other = after[place];
      if (one.isEqualNode(other)) {
        return;
      }
      const isElement = one.nodeType === Node.ELEMENT_NODE;
      if (isElement && one.cloneNode().isEqualNode(other.cloneNode())) {
        renew(one, other);
      } else {
        one.replaceWith(other);
      }
    });
  };

  const watch = (box) => {
    const bar = box.querySelector("progress");
    const words = box.querySelector(".bland-sms-words");
    const trouble = document.getElementById("bland-sms-trouble");
    const token = document.querySelector("#bland-sms-run [name=csrfmiddlewaretoken]");
    let announced = Date.now();
    let told = "";
    let fetched = Date.now();
    let state = box.dataset.state; // as the server rendered the page
    let done = bar.value;
    let isAnotherToken = false;

    const show = (progress) => {
      bar.max = progress.total;
      bar.value = progress.done;
      if (words.textContent !== progress.words) {
        words.textContent = progress.words;
      }
    };

    // What is seen changes at every look; what is read out loud only now and then, and at the end.
    const announce = (progress) => {
      const badge = document.querySelector("[data-bland-sms-part=badge]").innerText.trim();
      const text = `${badge}: ${progress.words}`;
      const isDue = !progress.open || Date.now() - announced > ANNOUNCE;
      if (isDue && text !== told) {
        document.dispatchEvent(new CustomEvent("bland-sms-say", { detail: text }));
        announced = Date.now();
        told = text;
      }
    };

    const tell = (text) => {
      if (trouble.firstElementChild.textContent !== text) {
        trouble.firstElementChild.textContent = text;
      }
      trouble.hidden = !text;
    };

    const ask = async (url, options) => {
      let answer;
      try {
        answer = await fetch(url, options);
      } catch (error) {
        throw new Error(box.dataset.offline); // a server that restarts, a train in a tunnel
      }
      if (answer.redirected) {
        throw new Error(box.dataset.loggedOut);
      }
      if (answer.status === 403 || answer.status === 404) {
        throw new Error(box.dataset.refused);
      }
      if (!answer.ok) {
        throw new Error(box.dataset.failing);
      }
      return answer;
    };

    const askProgress = async (drive) => {
      const headers = { Accept: "application/json" };
      if (!drive) {
        return (await ask(box.dataset.url, { headers })).json();
      }
      headers["X-CSRFToken"] = token.value;
      let answer;
      try {
        answer = await ask(box.dataset.runUrl, { method: "POST", headers });
      } catch (error) {
        if (error.message !== box.dataset.refused || isAnotherToken) {
          throw error;
        }
        // Who has logged in again in another window has another token, and may still see it.
        isAnotherToken = true;
        await replaceParts();
        return askProgress(false);
      }
      isAnotherToken = false;
      return answer.json();
    };

    // What the server renders takes the place of what it rendered before.
    const replaceParts = async () => {
      const html = await (await ask(box.dataset.partsUrl)).text();
      const parsed = new DOMParser().parseFromString(html, "text/html");
      const fresh = parsed.querySelector("[name=csrfmiddlewaretoken]");
      for (const old of document.querySelectorAll("[name=csrfmiddlewaretoken]")) {
        old.value = fresh.value;
      }
      for (const part of parsed.querySelectorAll("[data-bland-sms-part]")) {
        const name = part.dataset.blandSmsPart;
        const old = document.querySelector(`[data-bland-sms-part="${name}"]`);
        const typed = document.activeElement;
        const isTypedIn = typed.tagName === "INPUT" && typed.value && old?.contains(typed);
        if (!old || isTypedIn) {
          continue;
        }
        const form = old.contains(typed) ? typed.getAttribute("form") : null;
        renew(old, part);
        if (form && !typed.isConnected) {
          old.querySelector(`[form="${form}"]`)?.focus();
        }
      }
      fetched = Date.now();
    };

    const refreshParts = async (progress) => {
      const stale = document.getElementById("bland-sms-stale");
      if (progress.state === undefined) {
        stale?.removeAttribute("hidden"); // a server of an older release: it does not tell it
        return;
      }
      const isOld = progress.done !== done && Date.now() - fetched > PARTS;
      if (progress.state !== state || isOld) {
        await replaceParts();
        done = progress.done;
        stale?.setAttribute("hidden", "");
      }
      state = progress.state;
    };

    const look = async (drive) => {
      let pause = PAUSE;
      let next = false;
      try {
        const progress = await askProgress(drive);
        show(progress);
        await refreshParts(progress);
        announce(progress);
        tell("");
        if (!progress.open) {
          box.dataset.open = "no";
          return;
        }
        const wait = progress.wait_seconds * 1000; // until there is something to do again
        next = progress.drive && wait <= LONGEST;
        pause = Math.max(next ? 0 : PAUSE, Math.min(wait, LONGEST));
      } catch (error) {
        tell(error.message);
        pause = PAUSE_AFTER_ERROR;
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
