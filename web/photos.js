// The gallery: portraits that ship, and a person's own photos, which stay in this page's memory.

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

  // After a new connection the server knows none of them.
  async resume() {
    for (const photo of this.own.values()) photo.id = "";
    if (this.names.includes(kept.photo) && kept.photo !== this.target) await this.use(kept.photo);
  }

  async use(name) {
    const photo = this.own.get(name);
    try {
      if (photo && !photo.id) photo.id = await this.live.upload(photo.blob);
      await this.live.ask("photo", { id: photo ? photo.id : name });
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      this.refuse(name, error.message);
      return;
    }
    keep({ photo: name });
    this.show();
  }

  refuse(name, reason) {
    URL.revokeObjectURL(this.own.get(name)?.url);
    this.own.delete(name);
    this.show();
    $("reason").textContent = reason;
    $("refused").showModal();
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
      const name = `own ${blob.name} ${Date.now()} ${this.own.size}`;
      this.own.set(name, { blob, url: URL.createObjectURL(blob), id: "" });
      await this.use(name);
    }
  }

  show() {
    const add = Object.assign(document.createElement("button"), { type: "button", textContent: "Add a photo" });
    add.onclick = () => $("file").click();
    const shipped = this.portraits.map(name => this.button(name, `/portraits/${name}`, `Portrait: ${name}`));
    const added = [...this.own].map(([name, { url }], i) => this.button(name, url, `Your photo ${i + 1}`));
    $("gallery").replaceChildren(...shipped, ...added, add);
  }

  button(name, url, label) {
    const button = Object.assign(document.createElement("button"), { type: "button", title: label, ariaLabel: label });
    button.ariaPressed = String(name === this.chosen);
    button.append(Object.assign(new Image(), { src: url, alt: "" }));
    button.onclick = () => guarded(() => this.use(name));
    return button;
  }
}
