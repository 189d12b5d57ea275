// The page: its controls, its figures, and what is remembered.

import { Camera } from "./camera.js";
import { HIDDEN, readAge } from "./clock.js";
import { Live, Refusal } from "./live.js";

const $ = id => document.getElementById(id);
const GAINS = { mouth: "Mouth", eyes: "Eyes", brows: "Brows", gaze: "Gaze", head: "Head" };
const EVEN = { mouth: 1, eyes: 1, brows: 1, gaze: 1, head: 1 };
const PRESETS = {
  natural: { motion: "relative", ...EVEN, smoothing: 1 },
  expressive: { motion: "relative", mouth: 1.4, eyes: 1.2, brows: 1.6, gaze: 1.1, head: 1.1, smoothing: 1 },
  calm: { motion: "relative", mouth: 1, eyes: 1, brows: 0.8, gaze: 0.8, head: 0.5, smoothing: 2 },
  "quick, less smooth": { motion: "relative", ...EVEN, smoothing: 0.4 },
};
const SIZES = [256, 384, 512, 768, 1024];
const STAGES = { find: "Find face", detect: "Landmarks", retarget: "Retarget", generate: "Generate", composite: "Composite" };
const FACES = { unseen: "no face yet", found: "found", tracked: "tracked", lost: "lost", "re-found": "found again" };
const DEFAULTS = { ...PRESETS.natural, preset: "natural", best: false, mirror: true, framing: false, size: 512, camera: "", source: "", photo: "", consent: false };

const kept = { ...DEFAULTS, ...JSON.parse(localStorage.getItem("puppetcam") ?? "{}") };
const keep = changes => {
  Object.assign(kept, changes);
  localStorage.setItem("puppetcam", JSON.stringify(kept));
};
const wait = milliseconds => new Promise(resolve => setTimeout(resolve, milliseconds));

let about = { portraits: [], motions: [], source: "", target: "", iceServers: [] };
const own = new Map(); // a person's own photos: name -> {blob, url, id of this session's upload}
const measured = { ages: [], shown: [], stats: {}, state: "", recording: false };
window.puppetcam = measured; // for the benchmark and the tests

function show(state, text) {
  measured.state = state;
  $("state").dataset.state = state;
  $("state").textContent = text;
}

// What went wrong stays for a while, whatever the figures say meanwhile.
let held = 0;

function hint(text, milliseconds = 0) {
  if (performance.now() < held && !milliseconds) return;
  held = performance.now() + milliseconds;
  $("hint").textContent = text;
  $("hint").hidden = !text;
}

const live = new Live({
  iceServers: () => about.iceServers,
  onState: show,
  onTrack: stream => {
    $("result").srcObject = stream;
    $("result").play().catch(() => {});
  },
  onOpen: () => guarded(resume),
  onMessage: message => MESSAGES[message.type]?.(message),
});

const MESSAGES = { stats: showStats, overlay: drawOverlay };

const camera = new Camera($("camera"), reason => guarded(() => cameraGone(reason)));

// Run what a control does, and say what went wrong in plain words.
async function guarded(work) {
  try {
    await work();
  } catch (error) {
    hint(error.message, 5000);
  }
}

// Tell the server something that, without a connection, it learns from `resume`.
const tell = (type, content) => (live.isOpen ? live.ask(type, content) : Promise.resolve());

// After every connection the server learns everything anew.
async function resume() {
  for (const photo of own.values()) photo.id = "";
  show(camera.isOn ? "live" : "demo", camera.isOn ? "Live" : "Recorded motion");
  measured.recording = false;
  showRecording();
  await sendSettings();
  if (kept.size !== 512) await live.ask("size", { size: kept.size });
  if (kept.photo && kept.photo !== about.target && isKnown(kept.photo)) await usePhoto(kept.photo);
  if (camera.isOn) await live.ask("source", { name: "camera" });
  else if (kept.source && kept.source !== about.source) await live.ask("source", { name: kept.source });
}

const isKnown = name => own.has(name) || about.portraits.includes(name);

// --- camera

async function startCamera() {
  held = 0;
  hint("");
  try {
    const track = await camera.start(kept.camera);
    await live.send(track);
  } catch (error) {
    show("warning", "No camera");
    throw error;
  }
  document.body.dataset.wanted = "camera";
  showCamera();
  await tell("source", { name: "camera" });
  if (live.isOpen) show("live", "Live");
  await listCameras();
}

async function stopCamera() {
  delete document.body.dataset.wanted;
  camera.stop();
  await live.send(null);
  showCamera();
  await tell("source", { name: kept.source || about.source });
  if (live.isOpen) show("demo", "Recorded motion");
}

async function cameraGone(reason) {
  await stopCamera();
  document.body.dataset.wanted = "camera";
  show("warning", "No camera");
  hint(reason, 5000);
}

function showCamera() {
  $("self").hidden = !camera.isOn;
  $("start").textContent = camera.isOn ? "Stop camera" : "Start camera";
  $("calibrate").disabled = !camera.isOn;
  $("self").classList.toggle("mirrored", kept.mirror);
}

async function listCameras() {
  const cameras = await Camera.list();
  const options = cameras.map((device, i) => new Option(device.label || `camera ${i + 1}`, device.deviceId));
  $("cameras").replaceChildren(new Option("the browser's choice", ""), ...options.filter(option => option.value));
  $("cameras").value = cameras.some(device => device.deviceId === kept.camera) ? kept.camera : "";
}

navigator.mediaDevices?.addEventListener("devicechange", () =>
  guarded(async () => {
    await listCameras();
    if (document.body.dataset.wanted === "camera" && !camera.isOn) await startCamera();
  })
);

// --- microphone

let microphone = null;

async function switchMicrophone() {
  microphone?.getTracks().forEach(track => track.stop());
  microphone = null;
  if ($("microphone").checked) {
    try {
      microphone = await navigator.mediaDevices.getUserMedia({ audio: true });
    } catch (error) {
      $("microphone").checked = false;
      throw new Error(`The microphone does not start: ${error.message}`);
    }
  }
  await live.sendVoice(microphone?.getAudioTracks()[0] ?? null);
  $("result").muted = !microphone;
}

// --- photos

async function usePhoto(name) {
  const photo = own.get(name);
  try {
    if (photo && !photo.id) photo.id = await live.upload(photo.blob);
    await live.ask("photo", { id: photo ? photo.id : name });
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    if (photo) own.delete(name);
    showPhotos();
    $("reason").textContent = error.message;
    $("refused").showModal();
    return;
  }
  keep({ photo: name });
  showPhotos();
}

async function addPhotos(files) {
  const pictures = [...files].filter(file => file.type.startsWith("image/"));
  if (!pictures.length) throw new Error("That is no picture: a photo of a face is needed");
  if (!kept.consent && !(await askConsent())) return;
  keep({ consent: true });
  for (const blob of pictures) {
    const name = `own ${crypto.randomUUID()}`;
    own.set(name, { blob, url: URL.createObjectURL(blob), id: "" });
    await usePhoto(name);
  }
}

function askConsent() {
  const dialog = $("consent");
  $("agreed").checked = false;
  $("agree").disabled = true;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise(resolve => {
    dialog.onclose = () => resolve(dialog.returnValue === "yes");
  });
}

function photoButton(name, url, label) {
  const button = document.createElement("button");
  button.type = "button";
  button.title = button.ariaLabel = label;
  button.ariaPressed = String(name === (kept.photo || about.target));
  const picture = new Image();
  picture.src = url;
  picture.alt = "";
  button.append(picture);
  button.onclick = () => guarded(() => usePhoto(name));
  return button;
}

function showPhotos() {
  const add = document.createElement("button");
  add.type = "button";
  add.textContent = "Add a photo";
  add.onclick = () => $("file").click();
  const shipped = about.portraits.map(name => photoButton(name, `/portraits/${name}`, `Portrait: ${name}`));
  const added = [...own].map(([name, { url }], i) => photoButton(name, url, `Your photo ${i + 1}`));
  $("gallery").replaceChildren(...shipped, ...added, add);
}

// --- controls

function settings() {
  const names = ["motion", "smoothing", ...Object.keys(GAINS)];
  const chosen = Object.fromEntries(names.map(name => [name, kept[name]]));
  if (kept.motion === "absolute") Object.assign(chosen, EVEN); // it takes the source as it is
  return { ...chosen, reference: kept.best ? "best" : "first", mirror: kept.mirror, overlay: kept.framing };
}

const sendSettings = () => tell("settings", settings());

function change(changes) {
  keep(changes);
  showControls();
  guarded(sendSettings);
}

function showControls() {
  for (const name of ["motion", "preset", "size", "source"]) $(name).value = kept[name];
  for (const name of ["best", "mirror", "framing"]) $(name).checked = kept[name];
  for (const name of [...Object.keys(GAINS), "smoothing"]) {
    $(name).value = kept[name];
    $(name).disabled = kept.motion === "absolute" && name !== "smoothing";
    $(`${name}-value`).textContent = Number(kept[name]).toFixed(1);
  }
  if (!$("source").value) $("source").value = about.source;
  showCamera();
  if (!kept.framing) drawOverlay({ points: [], crop: [] });
}

function slider(name, label, most) {
  const row = Object.assign(document.createElement("label"), { className: "slider" });
  const input = Object.assign(document.createElement("input"), { id: name, type: "range", min: 0, max: most, step: 0.1 });
  const value = Object.assign(document.createElement("output"), { id: `${name}-value` });
  input.oninput = () => change({ [name]: Number(input.value), preset: "own" });
  row.append(label, input, value);
  return row;
}

function buildControls() {
  $("gains").append(...Object.entries(GAINS).map(([name, label]) => slider(name, label, 3)), slider("smoothing", "Smoothing", 3));
  $("preset").append(...Object.keys(PRESETS).map(name => new Option(name, name)), new Option("own", "own"));
  $("size").append(...SIZES.map(size => new Option(`${size} px`, size)));
  $("preset").onchange = () => change({ ...(PRESETS[$("preset").value] ?? {}), preset: $("preset").value });
  $("motion").onchange = () => change({ motion: $("motion").value, preset: "own" });
  for (const name of ["best", "mirror", "framing"]) $(name).onchange = () => change({ [name]: $(name).checked });
  $("size").onchange = () =>
    guarded(async () => {
      keep({ size: Number($("size").value) });
      await tell("size", { size: kept.size });
    });
  $("source").onchange = () =>
    guarded(async () => {
      keep({ source: $("source").value });
      if (!camera.isOn) await tell("source", { name: kept.source });
    });
  $("microphone").onchange = () => guarded(switchMicrophone);
  $("cameras").onchange = () =>
    guarded(async () => {
      keep({ camera: $("cameras").value });
      if (camera.isOn) await startCamera();
    });
}

// --- snapshot and recording

function download(url, name) {
  Object.assign(document.createElement("a"), { href: url, download: name }).click();
}

async function snapshot() {
  const video = $("result");
  if (!video.videoWidth) throw new Error("There is no picture yet");
  const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight - HIDDEN);
  canvas.getContext("2d").drawImage(video, 0, 0);
  const url = URL.createObjectURL(await canvas.convertToBlob());
  download(url, "puppetcam-synthetic.png");
  await wait(1000);
  URL.revokeObjectURL(url);
}

async function record() {
  const answer = await live.ask("record", { on: !measured.recording });
  measured.recording = !measured.recording;
  showRecording();
  if (answer.recording) download(`/recordings/${answer.recording}?session=${live.session}`, "puppetcam.mp4");
}

function showRecording() {
  $("record").ariaPressed = String(measured.recording);
  $("record").textContent = measured.recording ? "Stop recording" : "Record";
}

// --- figures

// Frames per second of [moment, count] pairs.
function rate(counts) {
  if (counts.length < 2) return 0;
  const [first, last] = [counts[0], counts.at(-1)];
  return (1000 * (last[1] - first[1])) / (last[0] - first[0]);
}

const middle = numbers => [...numbers].sort((a, b) => a - b)[numbers.length >> 1];

function follow() {
  const video = $("result");
  const onFrame = (moment, { presentedFrames }) => {
    measured.shown.push([moment, presentedFrames]);
    const age = readAge(video);
    if (age !== null) measured.ages.push([moment, age]);
    for (const list of [measured.shown, measured.ages]) if (list.length > 30000) list.splice(0, 10000);
    video.requestVideoFrameCallback(onFrame);
  };
  video.requestVideoFrameCallback(onFrame);
  video.onresize = () => {
    if (video.videoHeight > HIDDEN) $("frame").style.aspectRatio = `${video.videoWidth} / ${video.videoHeight - HIDDEN}`;
  };
}

function showStats(stats) {
  measured.stats = stats;
  const moment = performance.now();
  const shown = rate(measured.shown.filter(([time]) => moment - time < 2000));
  const ages = measured.ages.slice(-120).filter(([time]) => moment - time < 2000).map(([, age]) => age);
  const rows = {
    "Frames per second": `${shown.toFixed(0)} shown, ${stats.fps.toFixed(0)} made`,
    "Glass to glass": ages.length ? `${middle(ages).toFixed(0)} ms` : "–",
    ...Object.fromEntries(Object.entries(STAGES).map(([name, label]) => [label, `${stats.stages[name].toFixed(1)} ms`])),
    "All stages": `${stats.stages.total.toFixed(1)} ms`,
    Dropped: stats.dropped,
    Engine: `${stats.engine}, ${stats.precision}`,
    Device: stats.device,
    Face: stats.source === "camera" ? FACES[stats.face] : "recorded",
  };
  $("figures").replaceChildren(
    ...Object.entries(rows).flatMap(([label, value]) => [
      Object.assign(document.createElement("dt"), { textContent: label }),
      Object.assign(document.createElement("dd"), { textContent: value }),
    ])
  );
  warn(stats);
  camera.relieve(stats.stages.total);
}

function warn(stats) {
  const asked = stats.asked && !stats.asked.split(" ").every(word => [stats.engine, stats.precision, stats.device].includes(word));
  if (!camera.isOn) return;
  if (asked) hint(`${stats.asked} was asked for, and ${stats.engine} ${stats.precision} is what runs`);
  else if (stats.warning) hint(stats.warning);
  else if (["lost", "unseen"].includes(stats.face)) hint("No face in view: look into the camera");
  else hint("");
}

function drawOverlay({ points, crop }) {
  const canvas = $("overlay"), context = canvas.getContext("2d");
  canvas.width = canvas.clientWidth * devicePixelRatio || 1;
  canvas.height = canvas.clientHeight * devicePixelRatio || 1;
  context.fillStyle = context.strokeStyle = "#ffb454";
  context.lineWidth = devicePixelRatio;
  for (const [x, y] of points) context.fillRect(x * canvas.width - 1, y * canvas.height - 1, 2, 2);
  if (!crop.length) return;
  context.beginPath();
  for (const i of [0, 1, 3, 2]) context.lineTo(crop[i][0] * canvas.width, crop[i][1] * canvas.height);
  context.closePath();
  context.stroke();
}

// --- keys, drag and drop, paste

const KEYS = {
  s: ["Start or stop the camera", () => $("start").click()],
  c: ["Calibrate: this is my neutral face", () => $("calibrate").click()],
  m: ["Mirror", () => change({ mirror: !kept.mirror })],
  a: ["Relative or absolute motion", () => change({ motion: kept.motion === "absolute" ? "relative" : "absolute", preset: "own" })],
  o: ["Show landmarks and crop", () => change({ framing: !kept.framing })],
  p: ["Take a snapshot", () => $("snapshot").click()],
  r: ["Record, or stop and download", () => $("record").click()],
  n: ["Next photo", nextPhoto],
  f: ["Fill the screen", () => (document.fullscreenElement ? document.exitFullscreen() : $("stage").requestFullscreen())],
  "?": ["This sheet", () => $("keys").showModal()],
};

function nextPhoto() {
  const names = [...about.portraits, ...own.keys()];
  return usePhoto(names[(names.indexOf(kept.photo || about.target) + 1) % names.length]);
}

function onKey(event) {
  const typing = event.target.matches("select, input:not([type=range], [type=checkbox])");
  if (event.ctrlKey || event.metaKey || event.altKey || typing || document.querySelector("dialog[open]")) return;
  const key = KEYS[event.key.toLowerCase()];
  if (key) {
    event.preventDefault();
    guarded(async () => key[1]());
  }
}

function bind() {
  $("start").onclick = () => guarded(camera.isOn ? stopCamera : startCamera);
  $("calibrate").onclick = () => guarded(() => live.ask("calibrate"));
  $("snapshot").onclick = () => guarded(snapshot);
  $("record").onclick = () => guarded(record);
  $("help").onclick = () => $("keys").showModal();
  $("agreed").onchange = () => ($("agree").disabled = !$("agreed").checked);
  $("file").onchange = () => guarded(() => addPhotos($("file").files).finally(() => ($("file").value = "")));
  $("keylist").append(
    ...Object.entries(KEYS).flatMap(([key, [text]]) => {
      const name = document.createElement("dt");
      name.append(Object.assign(document.createElement("kbd"), { textContent: key.toUpperCase() }));
      return [name, Object.assign(document.createElement("dd"), { textContent: text })];
    })
  );
  addEventListener("keydown", onKey);
  addEventListener("paste", event => event.clipboardData.files.length && guarded(() => addPhotos(event.clipboardData.files)));
  addEventListener("dragover", event => {
    event.preventDefault();
    document.body.classList.add("dropping");
  });
  addEventListener("dragleave", event => event.relatedTarget || document.body.classList.remove("dropping"));
  addEventListener("drop", event => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    guarded(() => addPhotos(event.dataTransfer.files));
  });
}

async function open() {
  const response = await fetch("/about").catch(() => null);
  if (!response) {
    show("broken", "The server is gone. Trying again in 2 s");
    await wait(2000);
    return open();
  }
  const answer = await response.json();
  if (!response.ok) return show("refused", answer.message);
  about = answer;
  const motions = about.motions.map(name => new Option(`motion: ${name}`, `motion:${name}`));
  const known = about.motions.includes(about.source.replace("motion:", ""));
  $("source").append(...(known ? [] : [new Option(about.source, about.source)]), ...motions);
  showPhotos();
  showControls();
  follow();
  listCameras();
  return live.connect();
}

buildControls();
bind();
open();
