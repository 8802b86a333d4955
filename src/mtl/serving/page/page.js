"use strict";

const element = (id) => document.getElementById(id);
let token = "";
let identity = null;
let units = {};

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

function create(tag, properties, ...content) {
  const created = Object.assign(document.createElement(tag), properties);
  created.append(...content);
  return created;
}

const number = (value) => (value === null ? "no number" : `${Number(value.toPrecision(4))}`);
const withUnit = (value, unit) => number(value) + (unit ? ` ${unit}` : "");

// What people tell of a task, by its kind: the control, and how its truth is read; undefined: not known.
const controls = {
  classes(task, { names }) {
    const select = create("select", { name: task });
    select.append(new Option("not known", ""), ...names.map((name) => new Option(name)));
    return { shown: create("label", {}, `${task} `, select), read: () => select.value || undefined };
  },
  value(task, { unit }) {
    const input = create("input", { name: task, type: "number", step: "any", placeholder: "not known" });
    const read = () => (input.value === "" ? undefined : input.valueAsNumber);
    return { shown: create("label", {}, `${task} `, input, unit ? ` ${unit}` : ""), read };
  },
  multilabel(task, { names }) {
    const boxes = [...names, ""].map((value) => create("input", { name: task, type: "checkbox", value }));
    const none = boxes.at(-1);
    for (const box of boxes) {
      box.addEventListener("change", () => {
        for (const other of boxes) if (other !== box && (box === none || other === none)) other.checked = false;
      });
    }
    const labels = boxes.map((box) => create("label", {}, box, box === none ? " none of these" : ` ${box.value}`));
    const read = () => {
      const checked = boxes.filter((box) => box.checked).map((box) => box.value);
      return checked.length ? checked.filter(Boolean) : undefined;
    };
    return { shown: create("div", { className: "boxes", role: "group", ariaLabel: task }, `${task} `, ...labels), read };
  },
};
const truths = new Map();

// One menu where all tasks are of one column, else a control per task, which may say nothing.
function offerTruths(classes, tasks) {
  truths.clear();
  for (const [task, about] of classes.length ? [] : Object.entries(tasks)) {
    if (controls[about.kind]) truths.set(task, controls[about.kind](task, about));
  }
  element("truth").replaceChildren(...classes.map((name) => new Option(name)));
  element("truth").parentElement.hidden = truths.size > 0;
  element("truths").replaceChildren(element("truths").firstElementChild, ...[...truths.values()].map(({ shown }) => shown));
  element("truths").hidden = truths.size === 0;
}

function truth() {
  if (!truths.size) return { class: element("truth").value };
  const told = [...truths].map(([task, { read }]) => [task, read()]).filter(([, label]) => label !== undefined);
  return { labels: Object.fromEntries(told) };
}

const bar = (probability) => [create("meter", { value: probability }), `${(100 * probability).toFixed(1)} %`];

// The second and third cell of an answer's row, by what it consists of.
function cellsOf(answer) {
  if ("label" in answer) return [[answer.label], bar(answer.probability)];
  if ("value" in answer) return [[withUnit(answer.value, answer.unit)], []];
  if (!("labels" in answer)) return [[JSON.stringify(answer)], []];
  const bars = Object.entries(answer.probabilities).map(([name, probability]) =>
    create("div", { className: answer.labels.includes(name) ? "on" : "" }, ...bar(probability), ` ${name}`));
  return [[answer.labels.join(", ") || "none"], bars];
}

function show(joint) {
  const rows = Object.entries(joint.answers).map(([task, answer]) => {
    const row = document.createElement("tr");
    const name = answer.answer ? `${task} (${answer.answer})` : task;
    row.append(...[[name], ...cellsOf(answer)].map((content) => {
      const cell = document.createElement("td");
      cell.append(...content);
      return cell;
    }));
    return row;
  });
  element("answers").tBodies[0].replaceChildren(...rows);
  element("answers").hidden = false;
  if (truths.size) element("feedback").reset();
  element("feedback").hidden = identity === null || !(element("truth").options.length || truths.size);
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
    const judged = await (await ask("feedback", { method: "POST", body, headers })).json();
    const { right, accuracy, errors = {}, mean_absolute_error: mean = {} } = judged;
    const text = Object.entries(right).map(([task, correct]) =>
      `${task} was ${correct ? "right" : "wrong"} (${(100 * accuracy[task]).toFixed(1)} % right so far)`);
    text.push(...Object.entries(errors).map(([task, error]) =>
      `${task} was off by ${withUnit(error, units[task])} (${withUnit(mean[task], units[task])} on average so far)`));
    const rights = Object.values(right);
    const colour = rights.length && (rights.every(Boolean) ? "good" : "bad");
    setText(`${text.join(", ")}.`, colour || "", "judgement");
  } catch (error) {
    setText(error.message, "bad", "judgement");
  }
}

async function start() {
  try {
    const { images, classes, tasks } = await (await ask("samples")).json();
    units = Object.fromEntries(Object.entries(tasks).map(([task, { unit }]) => [task, unit]));
    offerTruths(classes, tasks);
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
