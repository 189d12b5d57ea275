// What the page says: its state, what went wrong, and what it has measured.

export const $ = id => document.getElementById(id);

export const measured = { ages: [], shown: [], stats: {}, state: "", recording: false };
window.puppetcam = measured; // for the benchmark and the tests

export function show(state, text) {
  measured.state = state;
  $("state").dataset.state = state;
  $("state").textContent = text;
}

// What went wrong stays for a while, whatever the figures say meanwhile.
let held = 0;

export function hint(text, milliseconds = 0) {
  if (performance.now() < held && !milliseconds) return;
  held = performance.now() + milliseconds;
  $("hint").textContent = text;
  $("hint").hidden = !text;
}

// A new start: nothing that went wrong before stays.
export function clearHint() {
  held = 0;
  hint("");
}

// Run what a control does, and say what went wrong in plain words.
export async function guarded(work) {
  try {
    await work();
  } catch (error) {
    hint(error.message, 5000);
  }
}
