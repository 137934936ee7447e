// The way in: a link is enough; who has a key signs in with it.
const chinese = navigator.language.startsWith("zh");
document.documentElement.lang = chinese ? "zh-Hans" : "en";

const said = document.getElementById("said");
const key = document.getElementById("key");

function open() {
  location.replace(location.pathname === "/enter" ? "/" : location.pathname);
}

document.getElementById("enter").addEventListener("submit", async (event) => {
  event.preventDefault();
  said.textContent = "";
  try {
    const answer = await fetch("/api/session", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ key: key.value.trim() }),
    });
    if (answer.ok) return open();
    const told = await answer.json();
    said.textContent = `${told.error.what}; ${told.error.remedy}`;
  } catch {
    said.textContent = chinese ? "服务器没有回应。" : "The server does not answer.";
  }
  key.select();
});

// A browser that followed a link from another site sent no cookie; from here it does.
const session = await fetch("/api/session");
if (session.ok && (await session.json()).name) open();
