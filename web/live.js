// The connection to the server: one peer connection, and a control channel of JSON messages.

const ALIVE = 1000; // milliseconds between two signs of life
const PATIENCE = 3000; // milliseconds that a broken connection may take to heal
const RETRIES = [1, 2, 4, 8]; // seconds
const BITRATE = 1e6; // bits per second of the camera's pictures: enough to find a face's points in

const sleep = milliseconds => new Promise(resolve => setTimeout(resolve, milliseconds));

const answerOf = response => response.json().catch(() => ({ message: `The server failed (${response.status})` }));

export class Refusal extends Error {}

// `onState(name, text)`, `onTrack(stream)`, `onMessage(message)` and `onOpen()` are the page's.
export class Live {
  constructor(handlers) {
    this.handlers = handlers;
    this.session = "";
    this.track = this.voice = this.heard = null;
    this.waiting = new Map();
    this.seq = 0;
    this.failures = 0;
    addEventListener("pagehide", () => this.leave());
    addEventListener("pageshow", event => event.persisted && this.connect());
    setInterval(() => this.isOpen && this.channel.send('{"type":"ping"}'), ALIVE);
  }

  get isOpen() {
    return this.channel?.readyState === "open";
  }

  async connect() {
    this.drop();
    this.handlers.onState("connecting", "Connecting");
    let peer;
    try {
      peer = this.peer = new RTCPeerConnection({ iceServers: this.handlers.iceServers() });
      await this.negotiate(peer);
    } catch (error) {
      if (!peer || peer === this.peer) this.retry(error);
    }
  }

  async negotiate(peer) {
    this.sender = peer.addTransceiver("video", { direction: "sendrecv" }).sender;
    this.voiceSender = peer.addTransceiver("audio", { direction: "sendrecv" }).sender;
    await this.sender.replaceTrack(this.track);
    await this.voiceSender.replaceTrack(this.voice);
    this.result = new MediaStream();
    peer.ontrack = ({ receiver, track }) => {
      receiver.jitterBufferTarget = receiver.playoutDelayHint = 0;
      if (track.kind === "audio") this.heard = track;
      else this.result.addTrack(track);
      if (this.voice && this.heard) this.result.addTrack(this.heard);
      if (track.kind === "video") this.handlers.onTrack(this.result);
    };
    this.channel = peer.createDataChannel("control");
    this.channel.onopen = () => peer === this.peer && this.opened();
    this.channel.onclose = () => peer === this.peer && this.retry(new Error("The connection broke"));
    this.channel.onmessage = event => peer === this.peer && this.hear(JSON.parse(event.data));
    peer.onconnectionstatechange = () => this.watch(peer);
    await peer.setLocalDescription();
    await this.gathered(peer);
    const offer = { sdp: peer.localDescription.sdp, type: "offer", strip: true };
    const response = await fetch("/offer", { method: "POST", body: JSON.stringify(offer) });
    const answer = await answerOf(response);
    if (!response.ok) throw Object.assign(new Refusal(answer.message), { status: response.status });
    if (peer !== this.peer) {
      navigator.sendBeacon(`/leave?session=${answer.session}`);
      return;
    }
    this.session = answer.session;
    await peer.setRemoteDescription({ sdp: answer.sdp, type: answer.type });
    const parameters = this.sender.getParameters();
    for (const encoding of parameters.encodings) encoding.maxBitrate = BITRATE;
    await this.sender.setParameters(parameters);
  }

  gathered(peer) {
    const complete = new Promise(resolve => {
      peer.onicegatheringstatechange = () => peer.iceGatheringState === "complete" && resolve();
    });
    return peer.iceGatheringState === "complete" ? null : Promise.race([complete, sleep(2000)]);
  }

  opened() {
    this.failures = 0;
    this.handlers.onOpen();
  }

  async watch(peer) {
    if (peer.connectionState === "disconnected") await sleep(PATIENCE);
    if (peer === this.peer && ["failed", "disconnected"].includes(peer.connectionState)) {
      this.retry(new Error("The connection failed"));
    }
  }

  retry(error) {
    this.drop();
    if (error.status === 401) {
      this.handlers.onState("refused", error.message);
      return;
    }
    const seconds = RETRIES[Math.min(this.failures++, RETRIES.length - 1)];
    const gone = error instanceof TypeError ? "The server is gone" : error.message;
    this.handlers.onState("broken", `${gone}. Trying again in ${seconds} s`);
    this.timer = setTimeout(() => this.connect(), seconds * 1000);
  }

  drop() {
    clearTimeout(this.timer);
    const peer = this.peer;
    this.peer = this.channel = this.sender = this.voiceSender = this.heard = null;
    peer?.close();
    for (const { reject } of this.waiting.values()) reject(new Error("The connection broke"));
    this.waiting.clear();
    if (this.session) this.leave();
  }

  leave() {
    navigator.sendBeacon(`/leave?session=${this.session}`);
    this.session = "";
  }

  hear(message) {
    const asked = this.waiting.get(message.seq);
    if (asked) {
      this.waiting.delete(message.seq);
      if (message.type === "done") asked.resolve(message);
      else asked.reject(new Refusal(message.message));
    } else if (message.type === "failed") {
      this.retry(new Error(message.message));
    } else {
      this.handlers.onMessage(message);
    }
  }

  // The server's answer to a message; rejects with its reason when it refuses.
  ask(type, content = {}) {
    if (!this.isOpen) return Promise.reject(new Error("There is no connection yet"));
    const seq = ++this.seq;
    const answer = new Promise((resolve, reject) => this.waiting.set(seq, { resolve, reject }));
    this.channel.send(JSON.stringify({ type, seq, ...content }));
    return answer;
  }

  // The camera's track, sent from now on; null sends none.
  async send(track) {
    this.track = track;
    await this.sender?.replaceTrack(track);
  }

  // The microphone's track, which comes back in time with the result; null sends none.
  async sendVoice(track) {
    this.voice = track;
    await this.voiceSender?.replaceTrack(track);
    // Silence that is played takes time, too.
    if (track && this.heard) this.result.addTrack(this.heard);
    else if (this.heard) this.result.removeTrack(this.heard);
  }

  async upload(photo) {
    const response = await fetch(`/photos?session=${this.session}&consent=yes`, { method: "POST", body: photo });
    const answer = await answerOf(response);
    if (!response.ok) throw new Refusal(answer.message);
    return answer.id;
  }
}
