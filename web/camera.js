// The browser's camera: its pictures, with a clock strip below, as the track that is sent.

import { drawStrip, now, stripRows } from "./clock.js";

const RATES = [15, 20, 24, 30]; // pictures per second, from the fewest to the most that are sent
const EARLY = 8; // milliseconds that a picture may come before it is due

const REASONS = {
  NotAllowedError: "The browser may not use the camera: allow it beside the address, then start again",
  NotFoundError: "There is no camera: connect one, and it starts by itself",
  NotReadableError: "Another program is using the camera: close it, then start again",
  OverconstrainedError: "The chosen camera is not there: choose another one",
};

export class Camera {
  // `video` shows the camera; `onEnd(reason)` is called when it goes by itself.
  constructor(video, onEnd) {
    this.video = video;
    this.onEnd = onEnd;
    this.canvas = document.createElement("canvas");
    this.context = this.canvas.getContext("2d", { alpha: false });
    this.ticker = new Worker("/ticker.js");
    this.ticker.onmessage = () => document.hidden && this.draw(now());
    this.rate = RATES.at(-1);
    this.due = 0;
  }

  get isOn() {
    return Boolean(this.stream);
  }

  // The track to send. Throws an Error that says what to do.
  async start(deviceId) {
    if (!navigator.mediaDevices) throw new Error("Browsers give the camera only to secure pages: use https");
    const video = { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 30 } };
    if (deviceId) video.deviceId = { exact: deviceId };
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video });
    } catch (error) {
      throw Object.assign(new Error(REASONS[error.name] ?? `The camera does not start: ${error.message}`), { name: error.name });
    }
    this.stop();
    this.stream = stream;
    stream.getVideoTracks()[0].onended = () => {
      this.stop();
      this.onEnd("The camera is gone: connect it again, and it starts by itself");
    };
    this.video.srcObject = stream;
    await this.video.play();
    this.sent = this.canvas.captureStream(0).getVideoTracks()[0];
    this.follow(stream);
    return this.sent;
  }

  follow(stream) {
    this.video.requestVideoFrameCallback((_, metadata) => {
      if (stream !== this.stream) return;
      const taken = metadata.captureTime ?? performance.now();
      this.draw(performance.timeOrigin + taken);
      this.follow(stream);
    });
  }

  // Pictures that would only be dropped are not sent: the server takes so many milliseconds for one.
  relieve(milliseconds) {
    const able = 1000 / milliseconds, step = RATES.indexOf(this.rate);
    if (able < (RATES[step - 1] ?? 0)) this.rate = RATES[step - 1];
    else if (able > 1.1 * this.rate) this.rate = RATES[step + 1] ?? this.rate;
  }

  // Whether it is time for another picture.
  isDue() {
    const late = performance.now() - this.due;
    if (late < -EARLY) return false;
    this.due += late > 100 ? late : 1000 / this.rate; // after a pause, time begins anew
    return true;
  }

  draw(moment) {
    const { videoWidth: width, videoHeight: height } = this.video;
    if (!this.sent || !width || !this.isDue()) return;
    const rows = stripRows(height);
    if (this.canvas.width !== width || this.canvas.height !== height + rows) {
      this.canvas.width = width;
      this.canvas.height = height + rows;
    }
    this.context.drawImage(this.video, 0, 0, width, height);
    drawStrip(this.context, width, height, rows, moment);
    this.sent.requestFrame();
  }

  stop() {
    this.stream?.getTracks().forEach(track => {
      track.onended = null;
      track.stop();
    });
    this.sent?.stop();
    this.stream = this.sent = this.video.srcObject = null;
  }

  static async list() {
    const devices = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
    return devices.filter(device => device.kind === "videoinput");
  }
}
