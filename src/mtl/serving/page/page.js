"use strict";

const at = (id) => document.getElementById(id);
let token = "";
let identity = null;

async function ask(path, options = {}) {
  const headers = { ...options.headers, ...(token && { Authorization: `Bearer ${token}` }) };
  const answer = await fetch(path, { ...options, headers });
  if (answer.status === 401) at("authorisation").hidden = false;
  if (!answer.ok) throw new Error((await answer.json()).error ?? `status ${answer.status}`);
  return answer;
}

function say(text, kind = "", where = "message") {
  at(where).textContent = text;
  at(where).className = kind;
}

function show(said) {
  const rows = Object.entries(said.answers).map(([task, { label, probability }]) => {
    const row = document.createElement("tr");
    const meter = document.createElement("meter");
    meter.value = probability;
    const cells = [[task], [label], [meter, `${(100 * probability).toFixed(1)} %`]];
    row.append(...cells.map((content) => {
      const cell = document.createElement("td");
      cell.append(...content);
      return cell;
    }));
    return row;
  });
  at("answers").tBodies[0].replaceChildren(...rows);
  at("answers").hidden = false;
  at("feedback").hidden = at("truth").options.length === 0 || identity === null;
  if (said.contradiction) say(`The models contradict each other: ${said.contradictions.join("; ")}.`, "bad", "verdict");
  else say(said.contradiction === false ? "The models do not contradict each other." : "", "", "verdict");
}

async function predict(picture) {
  at("picture").src = URL.createObjectURL(picture);
  at("picture").hidden = false;
  at("answers").hidden = at("feedback").hidden = true;
  for (const where of ["verdict", "judgement"]) say("", "", where);
  say("Asking …");
  try {
    const said = await (await ask("predict", { method: "POST", body: picture })).json();
    identity = said.id;
    show(said);
    say("");
  } catch (error) {
    say(error.message, "bad");
  }
}

async function tell(event) {
  event.preventDefault();
  try {
    const body = JSON.stringify({ id: identity, class: at("truth").value });
    const headers = { "Content-Type": "application/json" };
    const { right, accuracy } = await (await ask("feedback", { method: "POST", body, headers })).json();
    const text = Object.entries(right).map(([task, fine]) =>
      `${task} was ${fine ? "right" : "wrong"} (${(100 * accuracy[task]).toFixed(1)} % right so far)`);
    say(`${text.join(", ")}.`, Object.values(right).every(Boolean) ? "good" : "bad", "judgement");
  } catch (error) {
    say(error.message, "bad", "judgement");
  }
}

async function start() {
  try {
    const { images, classes } = await (await ask("samples")).json();
    at("truth").replaceChildren(...classes.map((name) => new Option(name)));
    const buttons = await Promise.all(images.map(async (index) => {
      const picture = await (await ask(`samples/${index}.png`)).blob();
      const button = document.createElement("button");
      const image = document.createElement("img");
      image.src = URL.createObjectURL(picture);
      image.alt = `test image ${index}`;
      button.append(image);
      button.addEventListener("click", () => predict(picture));
      return button;
    }));
    at("samples").replaceChildren(...buttons);
    at("tests").hidden = buttons.length === 0;
    at("authorisation").hidden = true;
    say("");
  } catch (error) {
    say(error.message, "bad");
  }
}

at("file").addEventListener("change", () => at("file").files.length && predict(at("file").files[0]));
at("feedback").addEventListener("submit", tell);
at("authorisation").addEventListener("submit", (event) => {
  event.preventDefault();
  token = at("token").value;
  start();
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  at("drop").addEventListener(kind, (event) => {
    event.preventDefault();
    at("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files.length) predict(event.dataTransfer.files[0]);
  });
}
start();
