// The page: its controls, and what they do.

import { Camera } from "./camera.js";
import { drawOverlay, follow, showStats, warn } from "./figures.js";
import { Live } from "./live.js";
import { $, clearHint, guarded, hint, measured, show } from "./notice.js";
import { Photos } from "./photos.js";
import { GAINS, keep, kept, PRESETS, settings, SIZES } from "./settings.js";
import { takeSnapshot } from "./snapshot.js";

const wait = milliseconds => new Promise(resolve => setTimeout(resolve, milliseconds));

let about = { portraits: [], motions: [], source: "", target: "", iceServers: [] };
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

const MESSAGES = { stats: report, overlay: drawOverlay };

const photos = new Photos(live);
const camera = new Camera($("camera"), reason => guarded(() => cameraGone(reason)));

// Tell the server something that, without a connection, it learns from `resume`.
const tell = (type, content) => (live.isOpen ? live.ask(type, content) : Promise.resolve());

// After every connection the server learns everything anew.
async function resume() {
  show(camera.isOn ? "live" : "demo", camera.isOn ? "Live" : "Recorded motion");
  measured.recording = false;
  showRecording();
  await guarded(sendSettings);
  if (kept.size !== 512) await guarded(() => live.ask("size", { size: kept.size }));
  await guarded(() => photos.resume());
  const source = camera.isOn ? "camera" : $("source").value;
  if (source !== about.source) await guarded(() => live.ask("source", { name: source }));
}

function report(stats) {
  showStats(stats);
  measured.recording = stats.recording; // it may have ended by itself
  showRecording();
  if (!camera.isOn) return;
  warn(stats);
  camera.relieve(stats.pace);
}

// --- camera

async function startCamera() {
  clearHint();
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
  await tell("source", { name: $("source").value });
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
  $("cameras").replaceChildren(new Option("automatic", ""), ...options.filter(option => option.value));
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

// --- controls

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
      const size = Number($("size").value);
      $("size").value = kept.size;
      await tell("size", { size });
      keep({ size });
      $("size").value = size;
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
  const url = URL.createObjectURL(await takeSnapshot(video));
  download(url, "puppetcam-synthetic.png");
  await wait(1000);
  URL.revokeObjectURL(url);
}

async function record() {
  const on = !measured.recording;
  const answer = await live.ask("record", { on });
  measured.recording = on;
  showRecording();
  if (answer.recording) download(`/recordings/${answer.recording}?session=${live.session}`, "puppetcam.mp4");
}

function showRecording() {
  $("record").ariaPressed = String(measured.recording);
  $("record").textContent = measured.recording ? "Stop recording" : "Record";
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
  n: ["Next photo", () => photos.next()],
  f: ["Fill the screen", () => (document.fullscreenElement ? document.exitFullscreen() : $("stage").requestFullscreen())],
  "?": ["This sheet", () => $("keys").showModal()],
};

function onKey(event) {
  const typing = event.target.matches("select, input:not([type=range], [type=checkbox])");
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || typing || document.querySelector("dialog[open]")) return;
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
  $("file").onchange = () => guarded(() => photos.add($("file").files).finally(() => ($("file").value = "")));
  $("keylist").append(
    ...Object.entries(KEYS).flatMap(([key, [text]]) => {
      const name = document.createElement("dt");
      name.append(Object.assign(document.createElement("kbd"), { textContent: key.toUpperCase() }));
      return [name, Object.assign(document.createElement("dd"), { textContent: text })];
    })
  );
  addEventListener("keydown", onKey);
  addEventListener("paste", event => event.clipboardData.files.length && guarded(() => photos.add(event.clipboardData.files)));
  addEventListener("dragover", event => {
    event.preventDefault();
    document.body.classList.add("dropping");
  });
  addEventListener("dragleave", event => event.relatedTarget || document.body.classList.remove("dropping"));
  addEventListener("drop", event => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    guarded(() => photos.add(event.dataTransfer.files));
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
  Object.assign(photos, { portraits: about.portraits, target: about.target });
  await guarded(() => photos.remember());
  photos.show();
  showControls();
  follow();
  listCameras();
  return live.connect();
}

buildControls();
bind();
open();
