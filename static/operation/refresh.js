// Replaces the marked part of the page by what the server has now, every so many milliseconds.
"use strict";
{
  const part = document.querySelector("[data-refresh]");
  const refresh = async () => {
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.querySelector("[data-refresh]") ?? page.querySelector("#content [role=alert]");
      part.classList.toggle("is-stale", !fresh);
      if (fresh) part.replaceChildren(...(fresh.hasAttribute("data-refresh") ? fresh.childNodes : [fresh]));
    } catch {
      // The web process is away: what is shown is old, and looks so.
      part.classList.add("is-stale");
    }
    setTimeout(refresh, Number(part.dataset.refresh));
  };
  setTimeout(refresh, Number(part.dataset.refresh));
}
