// theme.js: the colours that somebody chose, set before anything is drawn. A plain script: modules run too late.
"use strict";
{
    let chosen = null;
    try {
        chosen = localStorage.getItem("runnel.theme");
    } catch { /* storage is switched off: the system's colours */ }
    if (chosen === "light" || chosen === "dark")
        document.documentElement.dataset.theme = chosen;
}
