// The help of the key that is pointed at or has the focus; without this script each key shows it as its title.
"use strict";
const help = document.getElementById("help");
for (const key of document.querySelectorAll(".key")) {
  const text = key.title;
  key.removeAttribute("title");
  key.setAttribute("aria-describedby", "help");
  for (const event of ["mouseenter", "focus"]) key.addEventListener(event, () => { help.textContent = text; });
}
