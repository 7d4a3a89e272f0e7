// Refreshes the marked part of the page at the interval (ms) in its data-refresh attribute.
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
      // The web process is unreachable: mark the content as stale.
      part.classList.add("is-stale");
    }
    setTimeout(refresh, Number(part.dataset.refresh));
  };
  setTimeout(refresh, Number(part.dataset.refresh));
}
