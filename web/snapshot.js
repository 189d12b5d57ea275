// A picture of the result, as a PNG file that says what it is.

import { HIDDEN } from "./clock.js";

const COMMENT = "synthetic: made with Puppetcam"; // as recordings have it
const SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia";
const XMP =
  '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">' +
  '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" ' +
  `Iptc4xmpExt:DigitalSourceType="${SOURCE}"/></rdf:RDF></x:xmpmeta>`;
const HEADER = 33; // bytes of a PNG file's signature and first chunk

const bytes = text => new TextEncoder().encode(text);

// CRC-32 as in PNG's specification, annex D.
function checksum(data) {
  let crc = -1;
  for (const byte of data) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc;
}

function chunk(type, content) {
  const body = bytes(type + content), out = new DataView(new ArrayBuffer(body.length + 8));
  out.setUint32(0, body.length - 4);
  new Uint8Array(out.buffer).set(body, 4);
  out.setInt32(body.length + 4, checksum(body));
  return out.buffer;
}

// A video's present picture without its clock strip, as a PNG.
export async function takeSnapshot(video) {
  const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight - HIDDEN);
  canvas.getContext("2d").drawImage(video, 0, 0);
  const picture = await canvas.convertToBlob();
  const said = [chunk("tEXt", `Comment\0${COMMENT}`), chunk("iTXt", `XML:com.adobe.xmp\0\0\0\0\0${XMP}`)];
  return new Blob([picture.slice(0, HEADER), ...said, picture.slice(HEADER)], { type: picture.type });
}
