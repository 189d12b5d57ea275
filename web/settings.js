// What a person chose, which the browser remembers.

export const GAINS = { mouth: "Mouth", eyes: "Eyes", brows: "Brows", gaze: "Gaze", head: "Head" };
const EVEN = { mouth: 1, eyes: 1, brows: 1, gaze: 1, head: 1 };
export const PRESETS = {
  natural: { motion: "relative", ...EVEN, smoothing: 1 },
  expressive: { motion: "relative", mouth: 1.4, eyes: 1.2, brows: 1.6, gaze: 1.1, head: 1.1, smoothing: 1 },
  calm: { motion: "relative", mouth: 1, eyes: 1, brows: 0.8, gaze: 0.8, head: 0.5, smoothing: 2 },
  "quick, less smooth": { motion: "relative", ...EVEN, smoothing: 0.4 },
};
export const SIZES = [256, 384, 512, 768, 1024];
const DEFAULTS = { ...PRESETS.natural, preset: "natural", best: false, mirror: true, framing: false, size: 512, camera: "", source: "", photo: "", consent: false };

export const kept = { ...DEFAULTS, ...JSON.parse(localStorage.getItem("puppetcam") ?? "{}") };
export const keep = changes => {
  Object.assign(kept, changes);
  localStorage.setItem("puppetcam", JSON.stringify(kept));
};

// The choices that the server is told, as it takes them.
export function settings() {
  const names = ["motion", "smoothing", ...Object.keys(GAINS)];
  const chosen = Object.fromEntries(names.map(name => [name, kept[name]]));
  if (kept.motion === "absolute") Object.assign(chosen, EVEN); // it takes the source as it is
  return { ...chosen, reference: kept.best ? "best" : "first", mirror: kept.mirror, overlay: kept.framing };
}
