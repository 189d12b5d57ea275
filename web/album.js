// A person's own photos, which their browser keeps from visit to visit, and the server does not.

const done = request =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(new Error("The browser does not keep photos here: they are forgotten with the page"));
  });

async function photos(mode) {
  const opening = indexedDB.open("puppetcam", 1);
  opening.onupgradeneeded = () => opening.result.createObjectStore("photos");
  return (await done(opening)).transaction("photos", mode).objectStore("photos");
}

export const keepPhoto = async (name, blob) => done((await photos("readwrite")).put(blob, name));
export const forgetPhoto = async name => done((await photos("readwrite")).delete(name));

// [name, blob] of each, the oldest first: names begin with the time.
export async function keptPhotos() {
  const all = await photos("readonly");
  const [names, blobs] = await Promise.all([done(all.getAllKeys()), done(all.getAll())]);
  return names.map((name, i) => [name, blobs[i]]);
}
