// The gallery: portraits that ship, and a person's own photos.

import { forgetPhoto, keepPhoto, keptPhotos } from "./album.js";
import { Refusal } from "./live.js";
import { $, guarded } from "./notice.js";
import { keep, kept } from "./settings.js";

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

export class Photos {
  constructor(live) {
    this.live = live;
    this.portraits = [];
    this.target = ""; // what the server begins with, if it is a portrait
    this.own = new Map(); // name -> {blob, url, id of this session's upload}
  }

  get names() {
    return [...this.portraits, ...this.own.keys()];
  }

  get chosen() {
    return kept.photo || this.target;
  }

  // Those of earlier visits.
  async remember() {
    for (const [name, blob] of await keptPhotos()) this.own.set(name, { blob, url: URL.createObjectURL(blob), id: "" });
  }

  // After a new connection the server knows none of them.
  async resume() {
    for (const photo of this.own.values()) photo.id = "";
    if (!this.names.includes(kept.photo) || kept.photo === this.target) return;
    if (!(await this.use(kept.photo))) {
      keep({ photo: "" });
      this.show();
    }
  }

  // Whether the server took it; why not is shown.
  async use(name) {
    try {
      await this.send(name);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      $("reason").textContent = error.message;
      $("refused").showModal();
      return false;
    }
    keep({ photo: name });
    this.show();
    return true;
  }

  // The server may have forgotten an upload: then once more.
  async send(name) {
    const photo = this.own.get(name);
    if (!photo) return this.live.ask("photo", { id: name });
    const again = Boolean(photo.id);
    try {
      photo.id ||= await this.live.upload(photo.blob);
      await this.live.ask("photo", { id: photo.id });
    } catch (error) {
      photo.id = "";
      if (!again || !(error instanceof Refusal)) throw error;
      await this.send(name);
    }
  }

  // Have neither the browser nor the page know a photo any more; the server forgets it with the session.
  async forget(name) {
    URL.revokeObjectURL(this.own.get(name)?.url);
    this.own.delete(name);
    this.show();
    await forgetPhoto(name);
    if (kept.photo !== name) return;
    keep({ photo: "" });
    await this.use(this.target || this.portraits[0]);
  }

  next() {
    return this.use(this.names[(this.names.indexOf(this.chosen) + 1) % this.names.length]);
  }

  async add(files) {
    const pictures = [...files].filter(file => file.type.startsWith("image/"));
    if (!pictures.length) throw new Error("That is no picture: a photo of a face is needed");
    if (!kept.consent && !(await askConsent())) return;
    keep({ consent: true });
    for (const blob of pictures) {
      const name = `${Date.now()} ${this.own.size}`;
      this.own.set(name, { blob, url: URL.createObjectURL(blob), id: "" });
      if (await this.use(name)) await keepPhoto(name, blob);
      else await this.forget(name);
    }
  }

  show() {
    const add = Object.assign(document.createElement("button"), { type: "button", textContent: "Add a photo" });
    add.onclick = () => $("file").click();
    const shipped = this.portraits.map(name => this.button(name, `/portraits/${name}`, `Portrait: ${name}`));
    const added = [...this.own].map(([name, { url }], i) => this.framed(name, url, `Your photo ${i + 1}`));
    $("gallery").replaceChildren(...shipped, ...added, add);
  }

  // A photo that can be removed.
  framed(name, url, label) {
    const frame = Object.assign(document.createElement("div"), { className: "own" });
    const text = `Remove ${label.toLowerCase()}`;
    const remove = Object.assign(document.createElement("button"), { type: "button", textContent: "×", title: text, ariaLabel: text });
    remove.onclick = () => guarded(() => this.forget(name));
    frame.append(this.button(name, url, label), remove);
    return frame;
  }

  button(name, url, label) {
    const button = Object.assign(document.createElement("button"), { type: "button", title: label, ariaLabel: label });
    button.ariaPressed = String(name === this.chosen);
    button.append(Object.assign(new Image(), { src: url, alt: "" }));
    button.onclick = () => guarded(() => this.use(name));
    return button;
  }
}
