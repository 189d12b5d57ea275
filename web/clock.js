// The clock strip: 24 cells, black or white, that carry milliseconds through pixels (see clock.py).

export const ROWS = 16; // below a result
export const HIDDEN = ROWS + 2; // the encoder blurs the strip's edge into the picture
const CELLS = 24, BITS = 20;

export const now = () => performance.timeOrigin + performance.now();

// Rows to add below a camera picture of this height, so that the strip is 1/31 of the whole.
export const stripRows = height => Math.ceil(height / 30);

function cellsOf(milliseconds) {
  const bits = Array.from({ length: BITS }, (_, i) => (milliseconds >> (BITS - 1 - i)) & 1);
  const parity = bits.reduce((sum, bit) => sum ^ bit, 0);
  return [1, 0, ...bits, parity, 1 - parity];
}

export function drawStrip(context, width, top, rows, moment) {
  const cells = cellsOf(Math.round(moment) % 2 ** BITS);
  context.fillStyle = "#000";
  context.fillRect(0, top, width, rows);
  context.fillStyle = "#fff";
  cells.forEach((cell, i) => {
    const left = Math.round((i * width) / CELLS), right = Math.round(((i + 1) * width) / CELLS);
    if (cell) context.fillRect(left, top, right - left, rows);
  });
}

const small = new OffscreenCanvas(CELLS, 1).getContext("2d", { willReadFrequently: true });

// Milliseconds since the moment in the strip below a result, or null when it shows none.
export function readAge(video) {
  const { videoWidth: width, videoHeight: height } = video;
  if (!width) return null;
  const pixels = [];
  small.drawImage(video, 0, height - (ROWS * 2) / 3, width, ROWS / 3, 0, 0, CELLS, 1);
  const { data } = small.getImageData(0, 0, CELLS, 1);
  for (let i = 0; i < CELLS; i++) pixels.push(data[4 * i + 1] > 127 ? 1 : 0);
  const value = pixels.slice(2, 2 + BITS).reduce((sum, bit) => sum * 2 + bit, 0);
  if (cellsOf(value).some((cell, i) => cell !== pixels[i])) return null;
  const age = (Math.floor(now()) % 2 ** BITS) - value;
  return age < -1000 ? age + 2 ** BITS : age;
}
