// Continues a long action automatically; without scripts, the user presses the button.
document.addEventListener("DOMContentLoaded", () => document.getElementById("long-action").requestSubmit());
