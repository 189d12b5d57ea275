// The live figures, and the overlay on the camera's picture.

import { HIDDEN, readAge } from "./clock.js";
import { $, hint, measured } from "./notice.js";

const STAGES = { find: "Find face", detect: "Landmarks", retarget: "Retarget", generate: "Generate", composite: "Composite" };
const SAMPLED = 3; // one result in so many is looked at for its age: reading a video's pixels takes a millisecond
const FACES = { unseen: "no face yet", found: "found", tracked: "tracked", lost: "lost", "re-found": "found again" };

// Frames per second of [moment, count] pairs.
function rate(counts) {
  if (counts.length < 2) return 0;
  const [first, last] = [counts[0], counts.at(-1)];
  return (1000 * (last[1] - first[1])) / (last[0] - first[0]);
}

const middle = numbers => [...numbers].sort((a, b) => a - b)[numbers.length >> 1];

// Measure every result that is shown, and keep its shape.
export function follow() {
  const video = $("result");
  let turn = 0;
  const onFrame = (moment, { presentedFrames }) => {
    measured.shown.push([moment, presentedFrames]);
    const age = turn++ % SAMPLED === 0 ? readAge(video) : null;
    if (age !== null) measured.ages.push([moment, age]);
    for (const list of [measured.shown, measured.ages]) if (list.length > 30000) list.splice(0, 10000);
    video.requestVideoFrameCallback(onFrame);
  };
  video.requestVideoFrameCallback(onFrame);
  video.onresize = () => {
    if (video.videoHeight > HIDDEN) $("frame").style.aspectRatio = `${video.videoWidth} / ${video.videoHeight - HIDDEN}`;
  };
}

// Show the server's report.
export function showStats(stats) {
  measured.stats = stats;
  const moment = performance.now();
  const shown = rate(measured.shown.filter(([time]) => moment - time < 2000));
  const ages = measured.ages.slice(-120).filter(([time]) => moment - time < 2000).map(([, age]) => age);
  const rows = {
    Shown: `${shown.toFixed(0)} per second`,
    Made: `${stats.fps.toFixed(0)} per second`,
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
}

// Say what is not as it should be while the camera is on.
export function warn(stats) {
  const asked = stats.asked && !stats.asked.split(" ").every(word => [stats.engine, stats.precision].includes(word));
  if (asked) hint(`${stats.asked} was asked for, and ${stats.engine} ${stats.precision} is what runs`);
  else if (["lost", "unseen"].includes(stats.face)) hint("No face in view: look into the camera");
  else if (stats.warning) hint(stats.warning);
  else hint("");
}

export function drawOverlay({ points, crop }) {
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
