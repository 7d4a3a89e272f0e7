// Continues a long replay automatically; without scripts, the user presses the button.
document.addEventListener("DOMContentLoaded", () => document.getElementById("replay-goes-on").requestSubmit());
