// Chooses light or dark and the language before the first paint, so that nothing flashes; the only script that blocks.
"use strict";
{
  const kept = (key) => { try { return localStorage.getItem(key); } catch { return null; } };
  const root = document.documentElement;
  const theme = kept("bottega.theme");
  if (theme === "light" || theme === "dark") root.dataset.theme = theme;
  const chosen = kept("bottega.language") || (navigator.languages || [navigator.language])[0] || "en";
  root.lang = /^zh\b/i.test(chosen) ? "zh-CN" : "en";
}
