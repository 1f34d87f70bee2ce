// What the server answers: a ZIP file, and NumPy's arrays in it.

const CENTRAL = 0x02014b50, END = 0x06054b50;

/** Read a ZIP file: name -> Blob. The files of one disk, stored or deflated. */
export async function unzip(blob) {
  const tail = new DataView(await blob.slice(Math.max(0, blob.size - 65557)).arrayBuffer());
  let end = tail.byteLength - 22;
  while (end >= 0 && tail.getUint32(end, true) !== END) end--;
  if (end < 0) throw new Error("The answer is damaged.");
  const count = tail.getUint16(end + 10, true);
  const start = tail.getUint32(end + 16, true);
  const directory = new DataView(await blob.slice(start, start + tail.getUint32(end + 12, true)).arrayBuffer());
  const files = new Map();
  for (let at = 0, k = 0; k < count && directory.getUint32(at, true) === CENTRAL; k++) {
    const [name, extra, comment] = [28, 30, 32].map((place) => directory.getUint16(at + place, true));
    const title = new TextDecoder().decode(new Uint8Array(directory.buffer, at + 46, name));
    const local = directory.getUint32(at + 42, true);
    const head = new DataView(await blob.slice(local, local + 30).arrayBuffer());
    const from = local + 30 + head.getUint16(26, true) + head.getUint16(28, true);
    const packed = blob.slice(from, from + directory.getUint32(at + 20, true));
    const stored = directory.getUint16(at + 10, true) === 0;
    files.set(title, stored ? packed : await inflated(packed));
    at += 46 + name + extra + comment;
  }
  return files;
}

function inflated(blob) {
  return new Response(blob.stream().pipeThrough(new DecompressionStream("deflate-raw"))).blob();
}

/** Read an array of whole numbers in NumPy's npy format: its shape and its values. */
export async function readArray(blob) {
  const bytes = await blob.arrayBuffer();
  const size = new DataView(bytes).getUint16(8, true);
  const header = new TextDecoder("latin1").decode(new Uint8Array(bytes, 10, size));
  const shape = header.match(/'shape': \(([^)]*)\)/)[1].split(",").filter((part) => part.trim()).map(Number);
  const Values = header.includes("u2") ? Uint16Array : Uint8Array;
  return { shape, values: new Values(bytes, 10 + size) };
}
