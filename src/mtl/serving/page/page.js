"use strict";

const element = (id) => document.getElementById(id);
let token = "";
let identity = null;

async function ask(path, options = {}) {
  const headers = { ...options.headers, ...(token && { Authorization: `Bearer ${token}` }) };
  const answer = await fetch(path, { ...options, headers });
  if (answer.status === 401) element("authorisation").hidden = false;
  if (!answer.ok) throw new Error((await answer.json()).error ?? `status ${answer.status}`);
  return answer;
}

function setText(text, kind = "", id = "message") {
  element(id).textContent = text;
  element(id).className = kind;
}

const truths = () => [...element("truths").querySelectorAll("select")];

// One menu where all tasks are of one column, else a menu per task, which may say nothing.
function offerTruths(classes, labels) {
  const menus = classes.length ? [] : Object.entries(labels).map(([task, names]) => {
    const label = document.createElement("label");
    const select = document.createElement("select");
    select.name = task;
    select.append(new Option("not known", ""), ...names.map((name) => new Option(name)));
    label.append(`${task} `, select);
    return label;
  });
  element("truth").replaceChildren(...classes.map((name) => new Option(name)));
  element("truth").parentElement.hidden = menus.length > 0;
  element("truths").replaceChildren(element("truths").firstElementChild, ...menus);
  element("truths").hidden = menus.length === 0;
}

function truth() {
  if (!truths().length) return { class: element("truth").value };
  return { labels: Object.fromEntries(truths().filter((menu) => menu.value).map((menu) => [menu.name, menu.value])) };
}

function show(joint) {
  const rows = Object.entries(joint.answers).map(([task, { label, probability }]) => {
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
  element("answers").tBodies[0].replaceChildren(...rows);
  element("answers").hidden = false;
  for (const menu of truths()) menu.value = "";
  element("feedback").hidden = identity === null || !(element("truth").options.length || truths().length);
  if (joint.contradiction) setText(`The models contradict each other: ${joint.contradictions.join("; ")}.`, "bad", "verdict");
  else setText(joint.contradiction === false ? "The models do not contradict each other." : "", "", "verdict");
}

async function predict(picture) {
  element("picture").src = URL.createObjectURL(picture);
  element("picture").hidden = false;
  element("answers").hidden = element("feedback").hidden = true;
  for (const id of ["verdict", "judgement"]) setText("", "", id);
  setText("Asking …");
  try {
    const joint = await (await ask("predict", { method: "POST", body: picture })).json();
    identity = joint.id;
    show(joint);
    setText("");
  } catch (error) {
    setText(error.message, "bad");
  }
}

async function sendFeedback(event) {
  event.preventDefault();
  try {
    const body = JSON.stringify({ id: identity, ...truth() });
    const headers = { "Content-Type": "application/json" };
    const { right, accuracy } = await (await ask("feedback", { method: "POST", body, headers })).json();
    const text = Object.entries(right).map(([task, correct]) =>
      `${task} was ${correct ? "right" : "wrong"} (${(100 * accuracy[task]).toFixed(1)} % right so far)`);
    setText(`${text.join(", ")}.`, Object.values(right).every(Boolean) ? "good" : "bad", "judgement");
  } catch (error) {
    setText(error.message, "bad", "judgement");
  }
}

async function start() {
  try {
    const { images, classes, labels } = await (await ask("samples")).json();
    offerTruths(classes, labels);
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
    element("samples").replaceChildren(...buttons);
    element("tests").hidden = buttons.length === 0;
    element("authorisation").hidden = true;
    setText("");
  } catch (error) {
    setText(error.message, "bad");
  }
}

element("file").addEventListener("change", () => element("file").files.length && predict(element("file").files[0]));
element("feedback").addEventListener("submit", sendFeedback);
element("authorisation").addEventListener("submit", (event) => {
  event.preventDefault();
  token = element("token").value;
  start();
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  element("drop").addEventListener(kind, (event) => {
    event.preventDefault();
    element("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files.length) predict(event.dataTransfer.files[0]);
  });
}
start();
